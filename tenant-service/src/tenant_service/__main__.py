"""python -m tenant_service: the service on its inherited socket, or on HOST and PORT."""

from shared.logs import configure_logs
from shared.server import serve
from shared.settings import load
from tenant_service.config import Settings
from tenant_service.main import create_app

if __name__ == "__main__":
    settings = load(Settings)
    configure_logs("tenant-service", level=settings.log_level)
    serve(create_app(settings), host=settings.host, port=settings.port, fd=settings.service_fd)
