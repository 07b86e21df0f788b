"""Starts the service: `python -m auth_service`."""

from auth_service.config import Settings
from auth_service.main import create_app
from shared.logs import configure_logs
from shared.server import serve
from shared.settings import load


def main() -> None:
    """Runs until SIGTERM; exit status 78 for faulty settings."""
    settings = load(Settings)
    configure_logs("auth-service", level=settings.log_level)
    serve(create_app(settings), host=settings.host, port=settings.port, fd=settings.service_fd)


if __name__ == "__main__":
    main()
