"""`python -m notifier`: the stream's consumer with its health and metrics."""

from notifier.config import Settings
from notifier.main import create_app
from shared.logs import configure_logs
from shared.server import serve
from shared.settings import load

if __name__ == "__main__":
    settings = load(Settings)
    configure_logs("notifier", level=settings.log_level)
    serve(create_app(settings), host=settings.host, port=settings.port, fd=settings.service_fd)
