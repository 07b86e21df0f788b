"""Practices, people, log-ins and the outbox: whoever may enter, and what happened, is known here."""
