"""Clears up after sign-ups that died half-way, and forgets what is too old to matter.

Undoing is decided here, by the state in the central database; tenant-service is only told about it.
"""

from uuid import UUID

from sqlalchemy import func, select

from auth_service.database import Database
from auth_service.exceptions import ShardUnavailableError
from auth_service.shards import Shards
from auth_service.storage import changes, devices, mail_tokens, outbox, practices, sessions
from shared.logs import get_logger

EVERY_S = 5.0
STALE_AFTER_S = 15.0
"""Longer than a sign-up may take; a live one that is overtaken nevertheless is refused, never half-made."""
FORGET_EVERY_S = 600.0
_BATCH = 200
_MAX_FAILURES = 3
_DAY_S = 86_400
_DEVICES_KEPT_S = 400 * _DAY_S
_SESSIONS_KEPT_S = 7 * _DAY_S
_DELIVERED_KEPT_S = 30 * _DAY_S
_TURN_LOCK = 0x6175_7468_0002
"""Advisory lock: one replica undoes at a time."""
_log = get_logger()


class Reconciler:
    """Undoes abandoned sign-ups, releases their shards, prunes."""

    def __init__(
        self, database: Database, *, shards: Shards, changes_kept_s: int, stale_after_s: float = STALE_AFTER_S
    ) -> None:
        self._database = database
        self._shards = shards
        self._changes_kept_s = changes_kept_s
        self._stale_after_s = stale_after_s

    async def sweep(self) -> None:
        """One round. Raises UnavailableError; a tenant-service that is away is asked again in the next round."""
        abandoned = await self._database.run(self._undo_stale)
        failures = 0
        for practice_id in abandoned:
            try:
                # twice does no harm, should another replica's turn overlap with ours
                await self._shards.release(practice_id)
            except ShardUnavailableError:
                failures += 1
                if failures == _MAX_FAILURES:
                    return
            else:
                await self._database.run(self._mark_released, practice_id)

    async def forget(self) -> None:
        """Deletes what matters to nobody any more. Raises UnavailableError."""
        await self._database.run(self._prune)

    def _undo_stale(self) -> list[UUID]:
        """Undone sign-ups whose shards are still to be released; none when another replica is at it."""
        with self._database.engine.begin() as connection:
            if not connection.scalar(select(func.pg_try_advisory_xact_lock(_TURN_LOCK))):
                return []
            for practice_id in practices.stale_signups(connection, older_than_s=self._stale_after_s, limit=_BATCH):
                if practices.undo_signup(connection, practice_id):
                    _log.warning("signup_undone", practice_id=str(practice_id))
            return practices.unreleased_shards(connection, limit=_BATCH)

    def _mark_released(self, practice_id: UUID) -> None:
        with self._database.engine.begin() as connection:
            practices.mark_released(connection, practice_id)

    def _prune(self) -> None:
        with self._database.engine.begin() as connection:
            changes.prune_changes(connection, age_s=self._changes_kept_s)
            mail_tokens.prune_tokens(connection, expired_for_s=_DAY_S)
            devices.prune_devices(connection, unseen_for_s=_DEVICES_KEPT_S)
            sessions.prune_sessions(connection, expired_for_s=_SESSIONS_KEPT_S)
            outbox.prune_outbox(connection, delivered_for_s=_DELIVERED_KEPT_S)
