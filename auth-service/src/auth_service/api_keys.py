"""Keys for machines: of one practice, for some permissions, shown once."""

from dataclasses import dataclass
from uuid import UUID

from auth_service.auditing import Action, note
from auth_service.database import Database
from auth_service.exceptions import NoSessionError, TooManyKeysError, UnknownKeyError
from auth_service.models.api_keys import NewKeyBody
from auth_service.origin import Origin
from auth_service.paging import Page, page_of, position_in
from auth_service.storage import api_keys, changes, practices
from auth_service.storage.api_keys import ApiKey
from shared.api_keys import SHOWN_CHARACTERS, digest_of, new_key
from shared.changes import SESSION_REVOKED
from shared.ids import new_id

MOST_KEYS = 100


@dataclass(frozen=True, slots=True)
class MadeKey:
    """A key's row, and the key itself: the only time that anybody sees it."""

    row: ApiKey
    key: str


class ApiKeys:
    """Made, listed, revoked, and found for the gateway."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def make(self, body: NewKeyBody, origin: Origin) -> MadeKey:
        """A new key of the caller's practice. Raises NoSessionError, TooManyKeysError."""
        return await self._database.run(self._make, body, origin)

    async def page(self, origin: Origin, *, limit: int, cursor: str | None) -> Page[ApiKey]:
        """Some of the practice's keys. Raises NoSessionError, MalformedCursorError."""
        return await self._database.run(self._page, _practice_of(origin), limit, position_in(cursor))

    async def revoke(self, key_id: UUID, origin: Origin) -> None:
        """Gateways refuse it within seconds. Raises NoSessionError, UnknownKeyError."""
        await self._database.run(self._revoke, _practice_of(origin), key_id, origin)

    async def use(self, digest: bytes) -> ApiKey:
        """The good key with this digest. Raises UnknownKeyError."""
        return await self._database.run(self._use, digest)

    def _make(self, body: NewKeyBody, origin: Origin) -> MadeKey:
        practice_id = _practice_of(origin)
        if origin.person_id is None:
            raise NoSessionError
        key_id, key = new_id(), new_key()
        with self._database.engine.begin() as connection:
            practices.lock_practice(connection, practice_id)
            if api_keys.count_live(connection, practice_id) >= MOST_KEYS:
                raise TooManyKeysError
            api_keys.insert_key(
                connection,
                key_id,
                practice_id=practice_id,
                name=body.name,
                prefix=key[:SHOWN_CHARACTERS],
                digest=digest_of(key),
                permissions=body.permissions,
                created_by=origin.person_id,
                expires_at=body.expires_at,
            )
            detail = {"name": body.name, "permissions": list(body.permissions)}
            note(connection, Action.KEY_MADE, origin, target=str(key_id), detail=detail)
            row = api_keys.find_key(connection, practice_id, key_id)
            assert row is not None
            return MadeKey(row, key)

    def _page(self, practice_id: UUID, limit: int, after: UUID | None) -> Page[ApiKey]:
        with self._database.engine.begin() as connection:
            found = api_keys.list_keys(connection, practice_id, after=after, limit=limit + 1)
        return page_of(found, limit, lambda key: key.id)

    def _revoke(self, practice_id: UUID, key_id: UUID, origin: Origin) -> None:
        with self._database.engine.begin() as connection:
            if not api_keys.revoke_key(connection, practice_id, key_id):
                raise UnknownKeyError
            note(connection, Action.KEY_REVOKED, origin, target=str(key_id))
            # gateways know a key by its id as they know a session by its own
            changes.add_session_changes(connection, SESSION_REVOKED, [key_id], practice_id=practice_id)

    def _use(self, digest: bytes) -> ApiKey:
        with self._database.engine.begin() as connection:
            key = api_keys.use_key(connection, digest)
        if key is None:
            raise UnknownKeyError
        return key


def _practice_of(origin: Origin) -> UUID:
    if origin.practice_id is None:
        raise NoSessionError
    return origin.practice_id
