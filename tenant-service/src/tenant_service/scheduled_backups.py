"""Backups that nobody asks for: of each practice in turn, kept by rule. One process of the fleet does it."""

import time
import uuid
from datetime import timedelta
from pathlib import Path

from prometheus_client import CollectorRegistry, Counter, Gauge
from sqlalchemy import Engine

from shared.logs import describe_fault, get_logger
from tenant_service.backing_up import BackingUp
from tenant_service.backup_keys import BackupKeys
from tenant_service.central import Lock, locked_by_session
from tenant_service.exceptions import DeedRefusedError
from tenant_service.keep_rule import KeepRule
from tenant_service.storage import backups

ROUND_EVERY_S = 60.0
MOST_IN_A_ROUND = 1000
ROUND_S = 300.0
"""A round ends then; the next one goes on with those that wait longest."""
_log = get_logger()


class ScheduledBackups:
    """Takes what is due and removes what no rule keeps."""

    def __init__(
        self,
        engine: Engine,
        backing_up: BackingUp,
        keys: BackupKeys,
        *,
        folder: Path | None,
        every: timedelta,
        rule: KeepRule,
        metrics: CollectorRegistry,
    ) -> None:
        """Without a folder nothing is taken, and nothing removed."""
        self._engine = engine
        self._backing_up = backing_up
        self._keys = keys
        self._folder = folder
        self._every = every
        self._rule = rule
        self._is_stopping = False
        self._due = Gauge("gowebbo_backups_due", "Practices whose scheduled backup is due.", registry=metrics)
        self._taken = Counter("gowebbo_backups", "Scheduled backups by outcome.", ["outcome"], registry=metrics)

    def round(self) -> bool:
        """True when nothing is due any more, or another process is at it. Raises what servers.FAULTS lists."""
        with locked_by_session(self._engine, Lock.BACKUPS, 0) as session:
            if session is None:
                return True
            self._keys.reseal()
            if self._folder is None:
                return True
            return self._take_due(self._folder)

    def stop(self) -> None:
        """Lets the round end after the backup that is being taken."""
        self._is_stopping = True

    def _take_due(self, folder: Path) -> bool:
        with self._engine.begin() as connection:
            due = backups.due_practices(connection, every=self._every, limit=MOST_IN_A_ROUND)
        self._due.set(len(due))
        end, failed = time.monotonic() + ROUND_S, 0
        for count, practice_id in enumerate(due):
            if self._is_stopping or time.monotonic() > end:
                return False
            try:
                self._backing_up.take(practice_id, folder / str(practice_id), is_scheduled=True)
            except Exception as fault:  # noqa: BLE001 - whatever it is, the other practices' backups don't wait for it
                told = {"reason": str(fault)} if isinstance(fault, DeedRefusedError) else describe_fault(fault)
                _log.error("scheduled_backup_failed", practice_id=str(practice_id), **told)
                failed += 1
                self._taken.labels("failed").inc()
            else:
                self._taken.labels("taken").inc()
                self._prune(practice_id)
            self._due.set(len(due) - count - 1 + failed)
        return len(due) < MOST_IN_A_ROUND

    def _prune(self, practice_id: uuid.UUID) -> None:
        """Removes scheduled files that no rule keeps; whoever asked for a backup removes it himself."""
        with self._engine.begin() as connection:
            scheduled = [one for one in backups.backups_of(connection, practice_id) if one.is_scheduled]
        kept = self._rule.kept(one.taken_at for one in scheduled)
        superfluous = [one for one in scheduled if one.taken_at not in kept]
        for one in superfluous:
            Path(one.path).unlink(missing_ok=True)
        with self._engine.begin() as connection:
            backups.delete_backups(connection, [one.id for one in superfluous])
