"""All SQL of this service: Core statements, compiled once, prepared once a session, one round trip each.

PostgreSQL makes a patient's JSON; it passes through as bytes and is never parsed here. It is concatenated text, of
which `to_json` escapes what people write: `json_build_object` took 1.4 times as long for 20 patients and 1.9 times for
1,000, `row_to_json` 1.2 and 1.5 times. No blanks: a tenth fewer bytes.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple
from uuid import UUID

from sqlalchemy import ColumnElement, Integer, Text, bindparam, case, cast, func, insert, literal_column, select, update
from sqlalchemy import Uuid as UuidType
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.dialects.postgresql.base import PGDialect
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.expression import ClauseElement, UpdateBase

from patient_service.schema import patients
from patient_service.shard_connection import Prepared
from patient_service.shard_pool import ShardPool

Json = bytes
"""One patient, or several with commas between, as UTF-8 JSON."""

_BETWEEN = b",\n"
"""Between patients. JSON text holds no line break, so this is found nowhere else."""


class ShardSession(NamedTuple):
    """The shard of the caller's practice, as the signed context names it."""

    pool: ShardPool
    practice_id: str
    shard: str

    async def fetch(self, statement: Prepared, **parameters: object) -> list[tuple[Any, ...]]:
        """The rows of one statement. Raises a ServiceError."""
        return await self.pool.fetch(self.practice_id, self.shard, statement, parameters)


def _prepared(name: str, statement: ClauseElement) -> Prepared:
    """`PREPARE name (types) AS …` and `EXECUTE name (values)`, with psycopg2's placeholders for the values."""
    dialect = PGDialect(paramstyle="numeric_dollar")  # type: ignore[no-untyped-call]  # untyped there
    compiled = statement.compile(dialect=dialect)
    assert isinstance(compiled, SQLCompiler)
    names = compiled.positiontup or []
    types = ", ".join(compiled.binds[bound].type.compile(dialect) for bound in names)
    values = ", ".join(f"%({bound})s" for bound in names)
    return Prepared(
        name,
        f"PREPARE {name} ({types}) AS {compiled}".replace("%", "%%"),
        f"EXECUTE {name} ({values})",
        is_write=isinstance(statement, UpdateBase),
    )


def _number(value: int) -> ColumnElement[int]:
    return literal_column(str(value), Integer)


class _Member(NamedTuple):
    """A member of a JSON object: an SQL text, and what stands around it."""

    text: ColumnElement[str]
    before: str = ""
    after: str = ""


def _bare(value: ColumnElement[Any]) -> _Member:
    return _Member(cast(value, Text))


def _escaped(text: ColumnElement[str]) -> _Member:
    """Any text: PostgreSQL escapes it."""
    return _Member(cast(func.to_json(text), Text))


def _rfc3339(moment: ColumnElement[Any]) -> _Member:
    """`2026-11-22T10:00:00.5Z`; to_char takes three times as long."""
    utc = cast(func.timezone(literal_column("'UTC'"), moment), Text)
    return _Member(func.replace(utc, literal_column("' '"), literal_column("'T'"), type_=Text), '"', 'Z"')


def _json_object(members: Mapping[str, _Member]) -> ColumnElement[str]:
    """A JSON object as concatenated text, without blanks."""
    shown, between = _constant(""), "{"
    for name, member in members.items():
        shown = shown.concat(_constant(f'{between}"{name}":{member.before}')).concat(member.text)
        between = f"{member.after},"
    return shown.concat(_constant(between.removesuffix(",") + "}"))


def _constant(text: str) -> ColumnElement[str]:
    return literal_column(f"'{text}'", Text)


_column = patients.c
_patient = _json_object(
    {
        "id": _Member(cast(_column.id, Text), '"', '"'),
        "name": _escaped(_column.name),
        "age": _bare(_column.age),
        "mobile": _escaped(_column.mobile),
        "is_deleted": _bare(_column.is_deleted),
        "created_at": _rfc3339(_column.created_at),
        "updated_at": _rfc3339(_column.updated_at),
        "version": _bare(_column.version),
    }
)
_written = {name: bindparam(name, type_=_column[name].type) for name in ("name", "age", "mobile")}
_is_it = _column.id == bindparam("patient_id", type_=UuidType)
_is_active = _column.is_deleted == _number(0)
_changed = {"updated_at": func.now(), "version": _column.version + _number(1)}

_limit = bindparam("limit", type_=Integer)
_page = (
    select(_column.id, _patient.label("patient"))
    .where(_is_active, _column.id > bindparam("after", type_=UuidType))
    .order_by(_column.id)
    .limit(_limit + _number(1))
    .subquery()
)
_ids = func.array_agg(_page.c.id, type_=ARRAY(UuidType))

_LIST = _prepared(
    "list_active",
    select(
        func.string_agg(_page.c.patient, _constant(_BETWEEN.decode())),
        # the row beyond the limit only tells that there is more
        case((func.count() > _limit, cast(_ids[_limit], Text))),
    ),
)
_READ = _prepared("read_active", select(_patient).where(_is_it, _is_active))
_INSERT = _prepared(
    "insert_patient",
    insert(patients).values(id=bindparam("patient_id", type_=UuidType), **_written).returning(_patient),
)
_REPLACE = _prepared(
    "replace_active", update(patients).where(_is_it, _is_active).values(**_written, **_changed).returning(_patient)
)
_CHANGE = _prepared(
    "change_active",
    update(patients)
    .where(_is_it, _is_active)
    .values(**{name: func.coalesce(value, _column[name]) for name, value in _written.items()}, **_changed)
    .returning(_patient),
)
_DELETE = _prepared(
    "delete_active",
    update(patients).where(_is_it, _is_active).values(is_deleted=_number(1), **_changed).returning(_column.id),
)
_RESTORE = _prepared(
    "restore_any",
    update(patients)
    .where(_is_it)
    .values(
        is_deleted=_number(0),
        # an active one stays as it is
        updated_at=case((_is_active, _column.updated_at), else_=func.now()),
        version=_column.version + _column.is_deleted,
    )
    .returning(_patient),
)


async def list_active(session: ShardSession, *, after: str, limit: int) -> tuple[Json, str | None]:
    """At most `limit` active patients behind the id `after`, in their order; the last one's id if there are more."""
    ((rows, last_id),) = await session.fetch(_LIST, after=after, limit=limit)
    if last_id is None:
        return rows or b"", None
    return rows[: rows.rindex(_BETWEEN)], last_id.decode()


async def read_active(session: ShardSession, patient_id: UUID) -> Json | None:
    """An active patient."""
    return _only(await session.fetch(_READ, patient_id=patient_id))


async def insert_patient(session: ShardSession, patient_id: UUID, *, name: str, age: int, mobile: str) -> Json:
    """Stores a new patient and shows it."""
    ((shown,),) = await session.fetch(_INSERT, patient_id=str(patient_id), name=name, age=age, mobile=mobile)
    return bytes(shown)


async def replace_active(session: ShardSession, patient_id: UUID, *, name: str, age: int, mobile: str) -> Json | None:
    """Replaces what a client may write of an active patient."""
    return _only(await session.fetch(_REPLACE, patient_id=str(patient_id), name=name, age=age, mobile=mobile))


async def change_active(
    session: ShardSession, patient_id: UUID, *, name: str | None, age: int | None, mobile: str | None
) -> Json | None:
    """Changes the values that are given."""
    return _only(await session.fetch(_CHANGE, patient_id=str(patient_id), name=name, age=age, mobile=mobile))


async def delete_active(session: ShardSession, patient_id: UUID) -> bool:
    """Marks an active patient as deleted; the row stays. False if there is none."""
    return bool(await session.fetch(_DELETE, patient_id=patient_id))


async def restore_any(session: ShardSession, patient_id: UUID) -> Json | None:
    """Makes a deleted patient active; an active one is shown as it is."""
    return _only(await session.fetch(_RESTORE, patient_id=patient_id))


def _only(rows: list[tuple[Any, ...]]) -> Json | None:
    return rows[0][0] if rows else None
