"""Mails for what happened: Redis stream to Celery to SMTP, with a receipt to the outbox that remembers the intent."""
