"""Tokens that only a mail holds: for verifying an address, for a new password. Used once, good for some time."""

from dataclasses import dataclass
from enum import StrEnum
from uuid import UUID

from sqlalchemy import Connection, Float, bindparam, delete, func, insert, select, update

from auth_service.schema import interval, mail_tokens
from auth_service.tokens import digest_of, new_secret


class Purpose(StrEnum):
    """What a token is good for."""

    VERIFY_EMAIL = "verify-email"
    RESET_PASSWORD = "reset-password"  # noqa: S105 - no password


LIFE_S = {Purpose.VERIFY_EMAIL: 7 * 86_400, Purpose.RESET_PASSWORD: 30 * 60}


@dataclass(frozen=True, slots=True)
class MailToken:
    """Whose token it is, and where it was sent."""

    person_id: UUID
    email_key: str


_INSERT = insert(mail_tokens).values(
    digest=bindparam("digest_"),
    purpose=bindparam("purpose_"),
    person_id=bindparam("person"),
    email_key=bindparam("email"),
    expires_at=func.now() + interval(bindparam("life_s", type_=Float)),
)


def add_token(connection: Connection, purpose: Purpose, *, person_id: UUID, email_key: str) -> str:
    """A new token; only its digest is stored."""
    token = new_secret()
    given = {"digest_": digest_of(token), "purpose_": purpose, "person": person_id, "email": email_key}
    connection.execute(_INSERT, given | {"life_s": LIFE_S[purpose]})
    return token


def find_token(connection: Connection, token: str, purpose: Purpose) -> MailToken | None:
    """Whose token this is, as long as it is good."""
    row = connection.execute(
        select(mail_tokens.c.person_id, mail_tokens.c.email_key).where(
            mail_tokens.c.digest == digest_of(token),
            mail_tokens.c.purpose == purpose,
            mail_tokens.c.used_at.is_(None),
            mail_tokens.c.expires_at > func.now(),
        )
    ).first()
    return MailToken(*row) if row else None


def use_token(connection: Connection, token: str, purpose: Purpose) -> MailToken | None:
    """Whose token this was; from now on it is worth nothing. Of several calls at once one succeeds."""
    row = connection.execute(
        update(mail_tokens)
        .where(
            mail_tokens.c.digest == digest_of(token),
            mail_tokens.c.purpose == purpose,
            mail_tokens.c.used_at.is_(None),
            mail_tokens.c.expires_at > func.now(),
        )
        .values(used_at=func.now())
        .returning(mail_tokens.c.person_id, mail_tokens.c.email_key)
    ).first()
    return MailToken(*row) if row else None


def revoke_tokens(connection: Connection, person_id: UUID, purpose: Purpose) -> None:
    """Ends what the person has of this kind."""
    connection.execute(
        update(mail_tokens)
        .where(mail_tokens.c.person_id == person_id, mail_tokens.c.purpose == purpose, mail_tokens.c.used_at.is_(None))
        .values(used_at=func.now())
    )


def count_tokens(connection: Connection, person_id: UUID, purpose: Purpose, *, within_s: float) -> int:
    """How many were made for the person lately."""
    return (
        connection.scalar(
            select(func.count())
            .select_from(mail_tokens)
            .where(
                mail_tokens.c.person_id == person_id,
                mail_tokens.c.purpose == purpose,
                mail_tokens.c.created_at > func.now() - interval(within_s),
            )
        )
        or 0
    )


def prune_tokens(connection: Connection, *, expired_for_s: int) -> int:
    """Deletes tokens that expired long ago; how many."""
    return connection.execute(
        delete(mail_tokens).where(mail_tokens.c.expires_at < func.now() - interval(expired_for_s))
    ).rowcount
