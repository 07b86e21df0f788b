"""Logs: one JSON object a line on standard output.

A static event name and ids; never bodies, secrets or patient data.
"""

import logging
import sys
import traceback
from contextlib import suppress
from typing import Any, TextIO, cast

import orjson
import structlog


def configure_logs(service: str, *, level: str = "INFO") -> None:
    """Sets up structlog for this process, and routes the standard library's warnings through it."""
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.JSONRenderer(serializer=_dumps),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelNamesMapping()[level.upper()]),
        logger_factory=structlog.WriteLoggerFactory(file=cast("TextIO", _Output())),
    )
    structlog.contextvars.bind_contextvars(service=service)
    root = logging.getLogger()
    root.handlers = [_ForeignHandler()]
    root.setLevel(logging.WARNING)


def get_logger() -> structlog.typing.FilteringBoundLogger:
    """The process's logger."""
    logger: structlog.typing.FilteringBoundLogger = structlog.get_logger()
    return logger


def describe_fault(fault: BaseException) -> dict[str, Any]:
    """What may be logged of an unexpected exception: its type and where it came from.

    Its text is left out: drivers put SQL, parameters and whole rows into theirs.
    """
    frames = traceback.extract_tb(fault.__traceback__)[-6:]
    return {
        "fault": f"{type(fault).__module__}.{type(fault).__qualname__}",
        "where": [f"{frame.filename.rpartition('/src/')[2]}:{frame.lineno} {frame.name}" for frame in frames],
    }


def _dumps(record: Any, **_: Any) -> str:
    return orjson.dumps(record, default=str).decode()


class _Output:
    """Standard output, except that a full disk or a closed pipe costs the line and not the request that wrote it."""

    def write(self, text: str) -> None:
        with suppress(OSError):
            sys.stdout.write(text)

    def flush(self) -> None:
        with suppress(OSError):
            sys.stdout.flush()


class _ForeignHandler(logging.Handler):
    """A library's own record: its origin and template. Arguments may hold anything, so they stay out."""

    def emit(self, record: logging.LogRecord) -> None:
        fault = record.exc_info[1] if record.exc_info else None
        details = describe_fault(fault) if fault else {}
        get_logger().log(
            record.levelno, "library_message", logger=record.name, template=str(record.msg)[:200], **details
        )
