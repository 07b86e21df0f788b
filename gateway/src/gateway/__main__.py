"""`python -m gateway`."""

from contextlib import suppress

import uvloop

from gateway.config import Settings
from gateway.serving import serve
from shared.logs import configure_logs
from shared.settings import load


def main() -> None:
    """Runs the gateway until a signal ends it."""
    settings = load(Settings)
    configure_logs("gateway", level=settings.log_level)
    with suppress(KeyboardInterrupt):  # Ctrl-C is a way to end it, not a fault
        uvloop.run(serve(settings))


if __name__ == "__main__":
    main()
