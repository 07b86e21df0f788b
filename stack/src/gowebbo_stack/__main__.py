"""`python -m gowebbo_stack` is `gowebbo`."""

from gowebbo_stack.cli import app

app()
