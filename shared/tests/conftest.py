"""Every test here logs as a service does."""

import pytest
import structlog

from shared.logs import configure_logs


@pytest.fixture(autouse=True)
def service_logs():
    before = structlog.get_config()
    configure_logs("example")
    yield
    structlog.configure(**before)
    structlog.contextvars.clear_contextvars()
