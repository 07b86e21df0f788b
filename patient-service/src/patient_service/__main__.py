"""Starts the service: `python -m patient_service`."""

from patient_service.config import Settings
from patient_service.main import create_app
from shared.logs import configure_logs
from shared.server import serve
from shared.settings import load


def main() -> None:
    """Runs until SIGTERM; exit status 78 for faulty settings."""
    settings = load(Settings)
    configure_logs("patient-service", level=settings.log_level)
    serve(create_app(settings), host=settings.host, port=settings.port, fd=settings.service_fd)


if __name__ == "__main__":
    main()
