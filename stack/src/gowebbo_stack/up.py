"""The process of `gowebbo up`: takes the home and the port, listens to signals, runs the stack, says how it ended."""

import asyncio
import contextlib
import resource
import signal
import socket
from types import FrameType

from gowebbo_stack.home import HomeInUseError
from gowebbo_stack.launching import IdentityError
from gowebbo_stack.ports import PortTakenError, listen_tcp
from gowebbo_stack.postgres import PostgresError
from gowebbo_stack.progress import Progress
from gowebbo_stack.settings import SettingsError, load_secrets, read_given, read_settings
from gowebbo_stack.stack import Stack
from gowebbo_stack.supervision import NotStartedError

_EXPECTED = (
    SettingsError,
    HomeInUseError,
    PortTakenError,
    PostgresError,
    NotStartedError,
    IdentityError,
)
_OPEN_FILES = 65536


class _StopSignals:
    """Turns SIGINT, SIGTERM and SIGHUP into a wish to stop, from now until the process has ended.

    Unlike the loop's own handlers they stay when the loop closes, so a second Ctrl-C never disturbs the stopping.
    """

    def __init__(self) -> None:
        self._came = False
        self._loop: asyncio.AbstractEventLoop | None = None
        self._event = asyncio.Event()
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            # Whoever started this with nohup wants it to outlive the terminal.
            if number is not signal.SIGHUP or signal.getsignal(number) is not signal.SIG_IGN:
                signal.signal(number, self._note)

    def event(self) -> asyncio.Event:
        """Return an event of the running loop that is set as soon as a signal has come."""
        self._loop = asyncio.get_running_loop()
        if self._came:
            self._event.set()
        return self._event

    def _note(self, _number: int, _frame: FrameType | None) -> None:
        self._came = True
        if self._loop and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._event.set)


def up() -> int:
    """Run the embedded stack until it is told to stop. Returns the exit code."""
    signals = _StopSignals()
    progress = Progress()
    _allow_many_open_files()
    try:
        settings = read_settings(read_given())
        settings.home.prepare()
        with settings.home.lock(), listen_tcp(settings.host, settings.port) as gateway:
            asyncio.run(_run(Stack(settings, load_secrets(settings), progress), gateway, signals))
    except _EXPECTED as error:
        progress.fail(str(error))
        return 1
    progress.say("Everything is stopped.")
    return 0


async def _run(stack: Stack, gateway: socket.socket, signals: _StopSignals) -> None:
    await stack.run(gateway, signals.event())


def _allow_many_open_files() -> None:
    """Raise the soft limit: services and PostgreSQL inherit it, and each client and database takes descriptors."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _OPEN_FILES if hard == resource.RLIM_INFINITY else min(hard, _OPEN_FILES)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
