"""The door of the command `gowebbo`."""

import sys


def app() -> None:
    """Run the command line."""
    if sys.argv[1:] == ["up"]:
        # The supervisor lives long: without the command line's libraries it needs half the memory.
        from gowebbo_stack.up import up  # noqa: PLC0415

        sys.exit(up())
    from gowebbo_stack.commands import app as commands  # noqa: PLC0415

    commands()
