"""What the operator's commands show: rows put together from the gateway's answers."""

from typing import Any

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


def servers(admin: Admin) -> list[dict[str, Any]]:
    """Return every PostgreSQL server for shards."""
    return [{name: server.get(name) for name in SERVER_COLUMNS} for server in admin.all("servers")]
