"""One log file for each process, and what stands in it since this start."""

from pathlib import Path

_LIMIT_BYTES = 10_000_000
_TAIL_CHARACTERS = 3000


class Logs:
    """The folder of log files. A file that has grown beyond 10 MB is set aside at the next start."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._began_at_bytes: dict[str, int] = {}

    def begin(self, name: str) -> Path:
        """Return the file of a process that is about to start."""
        file = self._folder / f"{name}.log"
        if file.exists() and file.stat().st_size > _LIMIT_BYTES:
            file.replace(file.with_suffix(".log.1"))
        file.touch(mode=0o600)
        self._began_at_bytes[name] = file.stat().st_size
        return file

    def tail(self, name: str) -> str:
        """Return the end of what a process has written since it began."""
        file = self._folder / f"{name}.log"
        with file.open("rb") as content:
            content.seek(self._began_at_bytes.get(name, 0))
            text = content.read().decode(errors="replace")
        return f"{text[-_TAIL_CHARACTERS:].strip()}\n(from {file})"
