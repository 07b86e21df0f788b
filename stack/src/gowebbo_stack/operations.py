"""What the operator's commands show and do, put together from the gateway's answers."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import quote
from uuid import UUID

from gowebbo_stack.admin import Admin, CommandFailedError

PRACTICE_COLUMNS = ("id", "name", "email", "status", "server", "database")
SHARD_COLUMNS = ("practice_id", "server", "database", "revision", "fingerprint_ok", "state", "seconds", "error")
COPY_COLUMNS = ("database", "server", "origin", "state")
BACKUP_COLUMNS = ("taken_at", "path", "rows", "bytes", "sha256", "is_scheduled")
SERVER_COLUMNS = ("key", "host", "port", "state", "practices", "capacity", "connections")

_ASK_EVERY_S = 0.3
_PATIENCE_S = 60.0


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


def close(admin: Admin, practice_id: UUID, deed: str) -> dict[str, Any]:
    """`close` a practice, or `undo-close` it."""
    result: dict[str, Any] = admin.post(f"practices/{practice_id}/{deed}")
    return result


def export(admin: Admin, practice_id: UUID, folder: Path) -> dict[str, Any]:
    """Write what a practice stored into a folder on tenant-service's machine."""
    result: dict[str, Any] = admin.post(f"practices/{practice_id}/export", {"to": str(folder.absolute())})
    return result


def deletion_record(admin: Admin, practice_id: UUID) -> dict[str, Any]:
    """Return the signed record of a closed practice."""
    result: dict[str, Any] = admin.get(f"practices/{practice_id}/deletion-record")
    return result


def _practice_after(result: dict[str, Any]) -> dict[str, Any]:
    return {"practice": result["id"], "status": result["status"]}


def servers(admin: Admin) -> list[dict[str, Any]]:
    """Return every PostgreSQL server for shards."""
    return [{name: server.get(name) for name in SERVER_COLUMNS} for server in admin.all("servers")]


def shards_status(admin: Admin, *, tell: Callable[[int, int], None]) -> dict[str, Any]:
    """Return the newest revision and how every shard is now; tells how many were looked at, of how many."""
    total = sum(server["practices"] for server in admin.all("servers"))
    page = admin.get("shards/status")
    shards = page["data"]
    while page.get("next_cursor"):
        tell(len(shards), total)
        page = admin.get("shards/status", cursor=page["next_cursor"])
        shards += page["data"]
    return {"head": page["head"], "shards": shards}


def migrate_shards(admin: Admin, canary: int, *, tell: Callable[[int, int], None]) -> dict[str, Any]:
    """Bring every shard to the newest revision and return what came out."""
    job = follow(admin, admin.post("shards/migrate", {"canary": canary}), tell=tell)
    result: dict[str, Any] = job["result"]
    return result


def follow(admin: Admin, job: dict[str, Any], *, tell: Callable[[int, int], None]) -> dict[str, Any]:
    """Wait for a job and return it when it is done; tells how much is done, of how much.

    A job outlives the process that does it, so this outlives a minute without an answer. Raises CommandFailedError.
    """
    answered_at = time.monotonic()
    while job["state"] in {"waiting", "running"}:
        if job["total"]:
            tell(job["done"], job["total"])
        time.sleep(_ASK_EVERY_S)
        try:
            job = admin.get(f"jobs/{job['id']}")
        except CommandFailedError as error:
            if time.monotonic() - answered_at > _PATIENCE_S:
                raise CommandFailedError(
                    f"{error} Job {job['id']} goes on; repeat the command to follow it."
                ) from error
        else:
            answered_at = time.monotonic()
    if job["state"] == "failed":
        raise CommandFailedError(f"Job {job['id']} failed. {job['error']}")
    return job


def move(admin: Admin, practice_id: UUID, to: str, *, tell: Callable[[int, int], None]) -> dict[str, Any]:
    """Move a practice to another server and return what came out."""
    job = follow(admin, admin.post(f"practices/{practice_id}/move", {"to": to}), tell=tell)
    result: dict[str, Any] = job["result"]
    return result


def ask_fleet(admin: Admin, query: str, deadline_s: float, *, tell: Callable[[int, int], None]) -> dict[str, Any]:
    """Ask every shard one question and return what came back, and from whom."""
    order = {"query": query, "deadline_s": deadline_s}
    result: dict[str, Any] = follow(admin, admin.post("fleet/query", order), tell=tell)["result"]
    return result


def done(admin: Admin, path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
    """Have a job done and return its result."""
    result: dict[str, Any] = follow(admin, admin.post(path, body), tell=lambda _done, _total: None)["result"]
    return result


def backup(admin: Admin, practice_id: UUID, folder: Path) -> dict[str, Any]:
    """Write a backup of a practice into a folder on tenant-service's machine."""
    return done(admin, f"practices/{practice_id}/backup", {"to": str(folder.absolute())})


def restore(admin: Admin, path: Path) -> dict[str, Any]:
    """Restore a backup beside the live shard."""
    return done(admin, "backups/restore", {"path": str(path.absolute())})


def with_copy(
    admin: Admin, practice_id: UUID, database: str, deed: str, body: dict[str, Any] | None = None
) -> dict[str, Any]:
    """`diff`, `swap` or `take-back` with a copy of a practice."""
    return done(admin, f"practices/{practice_id}/copies/{quote(database, safe='')}/{deed}", body)


def copies(admin: Admin, practice_id: UUID) -> list[dict[str, Any]]:
    """Return the copies of a practice's data."""
    found: list[dict[str, Any]] = admin.get(f"practices/{practice_id}/copies")["data"]
    return found


def backups(admin: Admin, practice_id: UUID) -> list[dict[str, Any]]:
    """Return a practice's backups, the newest first."""
    found: list[dict[str, Any]] = admin.get(f"practices/{practice_id}/backups")["data"]
    return found


def drop_copy(admin: Admin, practice_id: UUID, database: str) -> list[dict[str, Any]]:
    """Drop a copy and return those that are left."""
    admin.delete(f"practices/{practice_id}/copies/{quote(database, safe='')}")
    return copies(admin, practice_id)


def evacuate(admin: Admin, key: str, *, tell: Callable[[int, int], None]) -> list[dict[str, Any]]:
    """Move every practice off a drained server; return the moves."""
    path = f"servers/{quote(key, safe='')}/evacuate"
    moves: list[dict[str, Any]] = follow(admin, admin.post(path), tell=tell)["result"]["moves"]
    return moves


def add_server(admin: Admin, key: str, **place: str | int | None) -> list[dict[str, Any]]:
    """Add a server, or change one that is known, and return every server."""
    admin.post("servers", {"key": key} | {name: value for name, value in place.items() if value is not None})
    return servers(admin)


def set_server(admin: Admin, key: str, deed: str) -> list[dict[str, Any]]:
    """`drain` or `open` a server, and return every server."""
    admin.post(f"servers/{quote(key, safe='')}/{deed}")
    return servers(admin)


def remove_server(admin: Admin, key: str) -> list[dict[str, Any]]:
    """Remove a server that is drained and empty, and return those that are left."""
    admin.delete(f"servers/{quote(key, safe='')}")
    return servers(admin)


def isolation(admin: Admin, practice_id: UUID | None, *, seen: Callable[[int, int], None]) -> dict[str, Any]:
    """Return what was found of every practice, or of one. `seen` is told how many of how many after each page."""
    if practice_id is not None:
        practices = admin.get("isolation", practice_id=str(practice_id))["data"]
    else:
        page = admin.get("isolation")
        practices = page["data"]
        seen(len(practices), page["total"])
        while page.get("next_cursor"):
            page = admin.get("isolation", cursor=page["next_cursor"])
            practices += page["data"]
            seen(len(practices), page["total"])
    is_ok = all(check["ok"] for practice in practices for check in practice["checks"])
    return {"ok": is_ok, "practices": practices}
