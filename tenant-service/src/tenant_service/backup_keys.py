"""Each practice's own key for its backups, in age's format. It is made with the first backup."""

import uuid

from pyrage import x25519
from sqlalchemy import Engine

from shared.logs import get_logger
from tenant_service.exceptions import DeedRefusedError
from tenant_service.sealing import Sealing, UnsealableError
from tenant_service.storage import backups
from tenant_service.storage.backups import Key

_log = get_logger()


class BackupKeys:
    """The keys. Blocking; safe to share."""

    def __init__(self, engine: Engine, sealing: Sealing) -> None:
        self._engine = engine
        self._sealing = sealing

    def recipient(self, practice_id: uuid.UUID) -> x25519.Recipient:
        """What encrypts for the practice."""
        with self._engine.begin() as connection:
            key = backups.find_key(connection, practice_id)
            if key is None:
                made = x25519.Identity.generate()
                key = Key(practice_id, str(made.to_public()), self._sealing.seal(str(made)))
                key = backups.insert_key(connection, key)
        return x25519.Recipient.from_str(key.recipient)

    def identity(self, practice_id: uuid.UUID) -> x25519.Identity:
        """What decrypts the practice's backups. Raises DeedRefusedError."""
        with self._engine.begin() as connection:
            key = backups.find_key(connection, practice_id)
        if key is None:
            raise DeedRefusedError("The key of this practice's backups is not known, or was destroyed.")
        try:
            return x25519.Identity.from_str(self._sealing.open(key.identity))
        except UnsealableError:
            raise DeedRefusedError("The practice's key was sealed with a secret that is no longer known.") from None

    def reseal(self) -> int:
        """Seals anew what an older secret sealed; how many."""
        with self._engine.begin() as connection:
            outdated = [key for key in backups.all_keys(connection) if self._sealing.is_outdated(key.identity)]
        count = 0
        for key in outdated:
            try:
                anew = self._sealing.seal(self._sealing.open(key.identity))
            except UnsealableError:
                _log.error("backup_key_unreadable", practice_id=str(key.practice_id))
                continue
            with self._engine.begin() as connection:
                backups.change_identity(connection, key, anew)
            count += 1
        return count
