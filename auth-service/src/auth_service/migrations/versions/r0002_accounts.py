"""Accounts: verified addresses, devices, tokens sent by mail, invitations, second factors, API keys, the audit."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import ARRAY, JSONB

revision = "0002"
down_revision = "0001"

_SCHEMA = "auth"

_REFUSE_CHANGES = """
CREATE FUNCTION auth.refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION '% is only ever added to', TG_TABLE_NAME USING ERRCODE = 'insufficient_privilege';
END
$$;
CREATE TRIGGER audit_is_final BEFORE UPDATE OR DELETE OR TRUNCATE ON auth.audit
    FOR EACH STATEMENT EXECUTE FUNCTION auth.refuse_change();
"""


def upgrade() -> None:
    op.add_column("people", _time("email_verified_at", nullable=True), schema=_SCHEMA)
    op.add_column("sessions", _time("second_factor_at", nullable=True), schema=_SCHEMA)
    op.add_column(
        "practices",
        sa.Column(
            "second_factor_roles", ARRAY(sa.Text), nullable=False, server_default="{}", comment="must log in with two"
        ),
        schema=_SCHEMA,
    )
    _create_mail_tokens()
    _create_invitations()
    _create_second_factors()
    _create_api_keys()
    _create_audit()


def _time(name: str, *, nullable: bool = False) -> sa.Column[object]:
    default = None if nullable else sa.func.now()
    return sa.Column(name, sa.DateTime(timezone=True), nullable=nullable, server_default=default)


def _person(*, primary_key: bool = False) -> sa.Column[object]:
    reference = sa.ForeignKey(f"{_SCHEMA}.people.id", ondelete="CASCADE")
    return sa.Column("person_id", sa.Uuid, reference, primary_key=primary_key, nullable=False)


def _practice() -> sa.Column[object]:
    return sa.Column("practice_id", sa.Uuid, sa.ForeignKey(f"{_SCHEMA}.practices.id"), nullable=False)


def _create_mail_tokens() -> None:
    op.create_table(
        "mail_tokens",
        sa.Column(
            "digest", sa.LargeBinary, primary_key=True, comment="SHA-256 of the token, which only the mail holds"
        ),
        sa.Column("purpose", sa.Text, nullable=False),
        _person(),
        sa.Column(
            "email_key",
            sa.Text,
            nullable=False,
            comment="where it was sent; worthless when the person has another one",
        ),
        _time("created_at"),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=False),
        _time("used_at", nullable=True),
        sa.CheckConstraint("purpose IN ('verify-email', 'reset-password')", name=op.f("mail_tokens_purpose_check")),
        schema=_SCHEMA,
    )
    for column in ("person_id", "expires_at"):
        op.create_index(f"mail_tokens_{column}_idx", "mail_tokens", [column], schema=_SCHEMA)
    op.create_table(
        "known_devices",
        _person(primary_key=True),
        sa.Column("device", sa.LargeBinary, primary_key=True, comment="SHA-256 of what the client says it is"),
        _time("first_seen_at"),
        _time("last_seen_at"),
        schema=_SCHEMA,
    )


def _create_invitations() -> None:
    op.create_table(
        "invitations",
        sa.Column("id", sa.Uuid, primary_key=True),
        _practice(),
        sa.Column("email", sa.Text, nullable=False, comment="as written"),
        sa.Column("email_key", sa.Text, nullable=False),
        sa.Column("role", sa.Text, nullable=False),
        sa.Column("digest", sa.LargeBinary, nullable=False, comment="SHA-256 of the newest mail's token"),
        sa.Column("invited_by", sa.Uuid, nullable=False),
        _time("created_at"),
        _time("sent_at"),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=False),
        _time("accepted_at", nullable=True),
        _time("revoked_at", nullable=True),
        sa.UniqueConstraint("digest", name="invitations_digest_key"),
        schema=_SCHEMA,
    )
    op.create_index(
        "invitations_open_key",
        "invitations",
        ["practice_id", "email_key"],
        unique=True,
        schema=_SCHEMA,
        postgresql_where=sa.text("accepted_at IS NULL AND revoked_at IS NULL"),
    )


def _create_second_factors() -> None:
    op.create_table(
        "second_factors",
        sa.Column("id", sa.Uuid, primary_key=True),
        _person(),
        sa.Column("kind", sa.Text, nullable=False),
        sa.Column("secret", sa.Text, nullable=False, comment="encrypted with a key derived from JWT_SECRET"),
        sa.Column(
            "last_step",
            sa.BigInteger,
            nullable=True,
            comment="time step of the newest code taken: no code is taken twice",
        ),
        _time("created_at"),
        _time("confirmed_at", nullable=True),
        _time("last_used_at", nullable=True),
        sa.CheckConstraint("kind IN ('totp')", name=op.f("second_factors_kind_check")),
        schema=_SCHEMA,
    )
    op.create_index(
        "second_factors_person_id_key", "second_factors", ["person_id", "kind"], unique=True, schema=_SCHEMA
    )
    op.create_table(
        "recovery_codes",
        _person(primary_key=True),
        sa.Column("digest", sa.LargeBinary, primary_key=True),
        _time("created_at"),
        _time("used_at", nullable=True),
        schema=_SCHEMA,
    )


def _create_api_keys() -> None:
    op.create_table(
        "api_keys",
        sa.Column("id", sa.Uuid, primary_key=True),
        _practice(),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("prefix", sa.Text, nullable=False, comment="the key's beginning, to tell it from others"),
        sa.Column("digest", sa.LargeBinary, nullable=False, comment="SHA-256 of the key, which is shown once"),
        sa.Column("permissions", ARRAY(sa.Text), nullable=False),
        sa.Column("created_by", sa.Uuid, nullable=False),
        _time("created_at"),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=True),
        _time("last_used_at", nullable=True),
        _time("revoked_at", nullable=True),
        sa.UniqueConstraint("digest", name="api_keys_digest_key"),
        schema=_SCHEMA,
    )
    op.create_index("api_keys_practice_id_idx", "api_keys", ["practice_id"], schema=_SCHEMA)


def _create_audit() -> None:
    op.create_table(
        "audit",
        sa.Column("id", sa.Uuid, primary_key=True, comment="by time, as all ids"),
        _time("at"),
        sa.Column(
            "practice_id",
            sa.Uuid,
            nullable=True,
            comment="whose owner may read it; no reference, it outlives the practice",
        ),
        sa.Column("actor", sa.Text, nullable=False, comment="person, api-key, admin, service or anonymous"),
        sa.Column("actor_id", sa.Text, nullable=True),
        sa.Column("action", sa.Text, nullable=False),
        sa.Column("outcome", sa.Text, nullable=False),
        sa.Column("person_id", sa.Uuid, nullable=True, comment="whom it is about"),
        sa.Column("target", sa.Text, nullable=True, comment="what else it is about: a session, an invitation, a key"),
        sa.Column("session_id", sa.Uuid, nullable=True),
        sa.Column("address", sa.Text, nullable=False),
        sa.Column("user_agent", sa.Text, nullable=False),
        sa.Column("request_id", sa.Text, nullable=False),
        sa.Column("detail", JSONB, nullable=False, server_default="{}"),
        sa.CheckConstraint("outcome IN ('success', 'failure')", name=op.f("audit_outcome_check")),
        schema=_SCHEMA,
    )
    op.create_index("audit_practice_id_idx", "audit", ["practice_id", "id"], schema=_SCHEMA)
    op.execute(_REFUSE_CHANGES)
