"""What PostgreSQL is asked alone: the product's own statements, and the usual way to the same JSON."""

from patient_service import storage
from patient_service.shard_connection import Prepared

_FIRST = "'00000000-0000-0000-0000-000000000000'"
_MEMBERS = ", ".join(
    f"'{name}', {name}" for name in ("id", "name", "age", "mobile", "is_deleted", "created_at", "updated_at", "version")
)


def list_active(limit: int) -> str:
    """The first page, as patient-service asks for it."""
    return _script(storage._LIST, str(limit), _FIRST)  # noqa: SLF001 -- measured is what is used


def usual_list(limit: int) -> str:
    """The same rows by json_agg and json_build_object."""
    return (
        f"SELECT json_agg(patient) FROM (SELECT json_build_object({_MEMBERS}) AS patient FROM patients"
        f" WHERE is_deleted = 0 AND id > {_FIRST} ORDER BY id LIMIT {limit}) AS page;\n"
    )


def insert_patient() -> str:
    """A new patient, as patient-service stores it; PostgreSQL makes the id."""
    return _script(storage._INSERT, "uuidv7()", "'Patient A'", "'9876543210'", "30")  # noqa: SLF001


def _script(statement: Prepared, *values: str) -> str:
    """The statement with constants for its parameters, which spares PostgreSQL to read them."""
    sql = statement.preparation.partition(" AS ")[2].replace("%%", "%")
    for number, value in enumerate(values, start=1):
        sql = sql.replace(f"${number}", value)
    return f"{sql};\n"
