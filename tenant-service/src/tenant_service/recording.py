"""Notes what the platform's admin does, in the transaction of the deed, so that none is without the other.

Who calls, and from where, is known by the call's context: the door sets it, and rules need not pass it on. No entry
holds a password, nor what is stored of a patient.
"""

import uuid
from collections.abc import Mapping
from contextvars import ContextVar
from enum import StrEnum
from typing import Any, NamedTuple

from sqlalchemy import Connection

from tenant_service.storage import operations


class Operation(StrEnum):
    """What is noted. A job is noted when it is asked for and when it has ended, with its kind and arguments."""

    SERVER_ADDED = "server.added"
    SERVER_CHANGED = "server.changed"
    SERVER_DRAINED = "server.drained"
    SERVER_OPENED = "server.opened"
    SERVER_REMOVED = "server.removed"
    COPY_DROPPED = "copy.dropped"
    JOB_ASKED = "job.asked"
    JOB_ENDED = "job.ended"
    PRACTICE_ERASED = "practice.erased"


class Origin(NamedTuple):
    """Where a call comes from; empty for what no call asked for."""

    address: str = ""
    request_id: str = ""


_NOBODY = Origin()
origin: ContextVar[Origin] = ContextVar("origin", default=_NOBODY)


def note(
    connection: Connection,
    action: Operation,
    *,
    practice_id: uuid.UUID | None = None,
    target: str | None = None,
    is_success: bool = True,
    detail: Mapping[str, Any] | None = None,
) -> None:
    """Adds an entry within the caller's transaction."""
    operations.add_entry(
        connection,
        action=action,
        outcome="success" if is_success else "failure",
        practice_id=practice_id,
        target=target,
        detail=detail or {},
        **origin.get()._asdict(),
    )
