"""A backup's file: a tar of COPY texts and two descriptions, compressed by gzip, encrypted in age's format.

`age --decrypt --identity KEY FILE | tar xz` opens it without this program. Members: `about.json`, each table in pieces
(`patients/000000.copy`, …), and at the end `manifest.json` with counts and checksums, which makes a file whole.
"""

import contextlib
import gzip
import hashlib
import io
import itertools
import json
import tarfile
from collections.abc import Iterator
from typing import IO, Any, NamedTuple

import pyrage
from psycopg2 import Error as DatabaseError
from pyrage import x25519

from tenant_service import shard_copy
from tenant_service.exceptions import DeedRefusedError
from tenant_service.shard_copy import Digest, Session, piped

FORMAT = 1
PIECE_BYTES = 4 * 1024 * 1024
_LEVEL = 3
"""gzip's: higher ones take twice the time for a few per cent."""
_MOST_DESCRIPTION_BYTES = 1024 * 1024
ABOUT, MANIFEST = "about.json", "manifest.json"


class Manifest(NamedTuple):
    """What a backup holds: of each table its columns, and what tells whether all rows are there."""

    columns: dict[str, list[str]]
    digests: dict[str, Digest]

    @property
    def rows(self) -> int:
        """In all tables."""
        return sum(digest.rows for digest in self.digests.values())


class BackupUnreadableError(DeedRefusedError):
    """It is damaged, cut off, or none of ours."""


def write(file: io.RawIOBase, source: Session, about: dict[str, Any], recipient: x25519.Recipient) -> Manifest:
    """Writes everything that the session's snapshot shows. Raises OSError, psycopg2.Error."""
    tables = shard_copy.tables(source)
    manifest = Manifest({table.name: list(table.columns) for table in tables}, shard_copy.digests(source))

    def pack(end: IO[bytes]) -> None:
        with (
            gzip.GzipFile(fileobj=end, mode="wb", compresslevel=_LEVEL, mtime=0) as compressed,
            tarfile.open(fileobj=compressed, mode="w|") as archive,
        ):
            _add(archive, ABOUT, json.dumps({"format": FORMAT, **about}).encode())
            for table in tables:
                with _Pieces(archive, table.name) as pieces:
                    shard_copy.dump(source, table, pieces)
            _add(archive, MANIFEST, json.dumps(manifest._asdict()).encode())

    try:
        with piped(pack) as packed:
            pyrage.encrypt_io(packed, file, [recipient])
    except pyrage.EncryptError as fault:  # what the file's own write raised, as a text
        raise OSError(str(fault)) from fault
    return manifest


class Opened:
    """A backup that is being read, front to back."""

    def __init__(self, archive: tarfile.TarFile) -> None:
        self._members: Iterator[tarfile.TarInfo] = iter(archive)
        self._archive = archive
        self.about: dict[str, Any] = self._description(next(self._members, None), ABOUT)
        if self.about.get("format") != FORMAT:
            raise BackupUnreadableError(f"This release does not know the format {self.about.get('format')}.")

    def load(self, target: Session) -> Manifest:
        """Fills the target's empty tables; what the manifest says. The caller compares and commits."""
        tables = {table.name: table for table in shard_copy.tables(target)}
        end = None
        for folder, members in itertools.groupby(self._members, key=lambda member: member.name.partition("/")[0]):
            if folder == MANIFEST:
                end = self._description(next(members), MANIFEST)
            elif folder not in tables:
                raise BackupUnreadableError(f"It has rows of {folder[:60]}, which this shard does not know.")
            else:
                shard_copy.load(target, tables[folder], io.BufferedReader(_Joined(self._archive, members)))
        if end is None:
            raise BackupUnreadableError("The file is cut off.")
        columns, digests = end["columns"], {name: Digest(*digest) for name, digest in end["digests"].items()}
        return Manifest(columns, digests)

    def _description(self, member: tarfile.TarInfo | None, name: str) -> dict[str, Any]:
        if member is None or member.name != name or member.size > _MOST_DESCRIPTION_BYTES:
            raise BackupUnreadableError("The file is no backup of ours.")
        content = self._archive.extractfile(member)
        assert content
        found: dict[str, Any] = json.loads(content.read())
        return found


@contextlib.contextmanager
def opened(file: IO[bytes], identity: x25519.Identity) -> Iterator[Opened]:
    """The backup, decrypted on the way. Raises BackupUnreadableError for whatever is wrong with the file."""

    def unpack(end: IO[bytes]) -> None:
        pyrage.decrypt_io(file, end, [identity])

    try:
        with piped(unpack) as packed, tarfile.open(fileobj=packed, mode="r|gz") as archive:
            yield Opened(archive)
            while packed.read(PIECE_BYTES):  # the last piece of the encryption proves that nothing is cut off
                pass
    except DatabaseError:
        raise
    except (pyrage.DecryptError, tarfile.TarError, EOFError, ValueError, KeyError, OSError) as fault:
        raise BackupUnreadableError("The file is damaged, cut off, or encrypted for another practice.") from fault


class _Pieces(io.RawIOBase):
    """A file whose content becomes members of a known size."""

    def __init__(self, archive: tarfile.TarFile, folder: str) -> None:
        self._archive, self._folder = archive, folder
        self._held = bytearray()
        self._count = 0

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        self._held += data
        while len(self._held) >= PIECE_BYTES:
            self._put(PIECE_BYTES)
        return len(data)

    def close(self) -> None:
        if not self.closed and (self._held or not self._count):
            self._put(len(self._held))
        super().close()

    def _put(self, size: int) -> None:
        _add(self._archive, f"{self._folder}/{self._count:06}.copy", bytes(self._held[:size]))
        del self._held[:size]
        self._count += 1


class _Joined(io.RawIOBase):
    """The members of a table, one after the other."""

    def __init__(self, archive: tarfile.TarFile, members: Iterator[tarfile.TarInfo]) -> None:
        self._archive, self._members = archive, members
        self._piece: IO[bytes] | None = None

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while True:
            if self._piece is not None and (count := self._fill(buffer)):
                return count
            member = next(self._members, None)
            if member is None:
                return 0
            self._piece = self._archive.extractfile(member)

    def _fill(self, buffer: Any) -> int:
        assert self._piece
        data = self._piece.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)


def _add(archive: tarfile.TarFile, name: str, content: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.size, member.mode = len(content), 0o600
    archive.addfile(member, io.BytesIO(content))


class Hashed(io.RawIOBase):
    """A file that is hashed as it is written: `sha256` and `count` of bytes."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._hash = hashlib.sha256()
        self.count = 0

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        self._file.write(data)
        self._hash.update(data)
        self.count += len(data)
        return len(data)

    @property
    def sha256(self) -> str:
        """Of what was written so far, in hex."""
        return self._hash.hexdigest()


def sha256_of(file: IO[bytes]) -> str:
    """Of a file's content, in hex; it is read from its beginning again afterwards."""
    digest = hashlib.file_digest(file, "sha256").hexdigest()  # type: ignore[arg-type]  # typeshed asks for more
    file.seek(0)
    return digest
