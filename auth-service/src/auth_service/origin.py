"""Where a call comes from: what sessions and the audit remember of it."""

from dataclasses import dataclass
from uuid import UUID

from shared.context import Caller
from shared.roles import STAFF_ROLES

_MAX_USER_AGENT = 256


@dataclass(frozen=True, slots=True)
class Origin:
    """A call's caller, device and request."""

    caller: Caller
    user_agent: str
    """Printable and short, whatever was sent."""
    request_id: str

    @property
    def address(self) -> str:
        """The client's address."""
        return self.caller.client_address

    @property
    def is_person(self) -> bool:
        """Whether somebody calls who has logged in to a practice."""
        return self.caller.role in STAFF_ROLES

    @property
    def person_id(self) -> UUID | None:
        """The person who calls; None for anybody else."""
        return UUID(self.caller.user_id) if self.is_person else None

    @property
    def session_id(self) -> UUID | None:
        """The session in which a person calls."""
        return UUID(self.caller.session_id) if self.is_person else None

    @property
    def practice_id(self) -> UUID | None:
        """The practice for which is called."""
        return UUID(self.caller.practice_id) if self.caller.practice_id else None


def origin_of(caller: Caller, *, user_agent: str, request_id: str) -> Origin:
    """From what a request says."""
    return Origin(caller, "".join(filter(str.isprintable, user_agent))[:_MAX_USER_AGENT], request_id)
