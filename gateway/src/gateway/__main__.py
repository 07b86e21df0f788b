"""`python -m gateway`."""

import uvloop

from gateway.config import Settings
from gateway.serving import serve
from shared.logs import configure_logs
from shared.settings import load


def main() -> None:
    """Runs the gateway until a signal ends it."""
    settings = load(Settings)
    configure_logs("gateway", level=settings.log_level)
    uvloop.run(serve(settings))


if __name__ == "__main__":
    main()
