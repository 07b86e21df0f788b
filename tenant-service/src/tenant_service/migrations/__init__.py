"""Alembic's two histories: the central schema `tenant`, and the database of a practice."""
