"""What the operator's commands show and do, put together from the gateway's answers."""

from typing import Any
from uuid import UUID

from gowebbo_stack.admin import Admin

PRACTICE_COLUMNS = ("id", "name", "email", "status", "server", "database")
SERVER_COLUMNS = ("key", "host", "port", "state", "practices", "capacity", "connections")


def practices(admin: Admin) -> list[dict[str, Any]]:
    """Return every practice with the place of its database. The directory knows the server, not the practice."""
    places = {place["practice_id"]: place for place in admin.all("shards")}
    rows = []
    for practice in admin.all("practices"):
        place = places.get(practice["id"], {})
        row = {"server": place.get("server"), "database": place.get("database") or practice.get("database_name")}
        rows.append({name: (practice | row).get(name) for name in PRACTICE_COLUMNS})
    return rows


def suspend(admin: Admin, practice_id: UUID) -> dict[str, Any]:
    """Suspend a practice."""
    return _practice_after(admin.post(f"practices/{practice_id}/suspend"))


def resume(admin: Admin, practice_id: UUID) -> dict[str, Any]:
    """Let a suspended practice in again."""
    return _practice_after(admin.post(f"practices/{practice_id}/resume"))


def _practice_after(result: dict[str, Any]) -> dict[str, Any]:
    return {"practice": result["id"], "status": result["status"]}


def servers(admin: Admin) -> list[dict[str, Any]]:
    """Return every PostgreSQL server for shards."""
    return [{name: server.get(name) for name in SERVER_COLUMNS} for server in admin.all("servers")]
