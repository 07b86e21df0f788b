"""Keeping processes alive: start, watch, restart with back-off, stop. Knows nothing of what the processes do."""

import asyncio
import contextlib
import itertools
import math
import os
import signal
import subprocess
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Self

from gowebbo_stack.launching import Launch, Process, start

FIRST_DELAY_S = 0.1
HEALTHY_AFTER_S = 5.0
"""A child that lived this long has recovered: the back-off begins anew."""
CRASH_TIMEOUT_S = 1.5
"""How long a program may take to end at once."""
EX_CONFIG = 78
"""A program's exit status for faulty settings (sysexits.h): starting it again would not help."""


class NotStartedError(RuntimeError):
    """A program can't be started; the message says why."""


class Reaper:
    """Tells when child processes have ended. It uses SIGCHLD, so it lives in the main thread's loop."""

    def __init__(self) -> None:
        self._watched: dict[Process, asyncio.Future[int]] = {}

    def __enter__(self) -> Self:
        asyncio.get_running_loop().add_signal_handler(signal.SIGCHLD, self._collect)
        return self

    def __exit__(self, *_: object) -> None:
        asyncio.get_running_loop().remove_signal_handler(signal.SIGCHLD)

    def ended(self, process: Process) -> "asyncio.Future[int]":
        """Return a future that becomes the process's return code."""
        future: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._watched[process] = future
        self._collect()  # it may have ended before it was watched
        return future

    def _collect(self) -> None:
        for process, future in list(self._watched.items()):
            code = process.poll()
            if code is not None:
                del self._watched[process]
                if not future.done():
                    future.set_result(code)


@dataclass(frozen=True)
class Program:
    """What is to run always, and how it wants to be stopped."""

    name: str
    launch: Launch
    entry: str = ""  # the entry of `status` it belongs to, when it is not its name
    stop_signal: signal.Signals = signal.SIGTERM
    stop_timeout_s: float = 3.0
    stop_rank: int = 2  # lower ones stop first
    crash_signal: signal.Signals | None = None  # ends it at once, with children of its own that SIGKILL would leave
    longest_delay_s: float = 5.0
    before_start: Callable[[], None] = lambda: None
    start: Callable[[Launch], Process] = start


class Child:
    """A program that is kept running.

    `on_change` is called whenever its pid came or went, `announce` with what people should know.
    """

    def __init__(
        self,
        program: Program,
        reaper: Reaper,
        *,
        on_change: Callable[[], None],
        announce: Callable[[str], None],
    ) -> None:
        self.program = program
        self.refused_settings = False
        self.deaths = 0
        self._reaper = reaper
        self._on_change = on_change
        self._announce = announce
        self._process: Process | None = None
        self._ended: asyncio.Future[int] | None = None
        self._keeper: asyncio.Task[None] | None = None
        self._stopping = False

    @property
    def pid(self) -> int | None:
        """The process's id; None while it is down."""
        return self._process.pid if self._process else None

    def start(self) -> None:
        """Start it and keep it running until it is stopped. Raises NotStartedError if it can't be executed."""
        self._launch()
        self._keeper = asyncio.create_task(self._keep(), name=f"keep {self.program.name}")

    async def stop(self, left_s: float = math.inf) -> None:
        """Stop it: its own signal first; when its time is over, or what is left for all, it is ended hard."""
        self._stopping = True
        process, ended = self._process, self._ended
        if process and ended:
            limit_s = min(self.program.stop_timeout_s, left_s)
            crash_signal = self.program.crash_signal
            if not await _ends(process, ended, self.program.stop_signal, limit_s):
                how = "ended at once: it will recover when it starts again" if crash_signal else "killed"
                self._announce(f"{self.program.name} did not stop within {limit_s:.0f} s and is {how}")
                if crash_signal:
                    await _ends(process, ended, crash_signal, CRASH_TIMEOUT_S)
            _kill_group(process)
            await asyncio.wait([ended])
        if self._keeper:
            self._keeper.cancel()
            await asyncio.wait([self._keeper])
        self._process = None
        self._on_change()

    def _launch(self) -> None:
        try:
            self.program.before_start()
        except OSError as error:
            raise NotStartedError(f"{self.program.name} can't be started: {error}") from error
        self._process = _execute(self.program.name, self.program.launch, self.program.start)
        self._ended = self._reaper.ended(self._process)
        self._on_change()

    async def _keep(self) -> None:
        loop = asyncio.get_running_loop()
        delay_s = FIRST_DELAY_S
        while not self._stopping:
            began = loop.time()
            what_happened = await self._end()
            if self._stopping:
                return
            if loop.time() - began >= HEALTHY_AFTER_S:
                delay_s = FIRST_DELAY_S
            if self.refused_settings:
                delay_s = self.program.longest_delay_s
            self._announce(f"{self.program.name} {what_happened}, starting it again in {delay_s:.1f} s")
            await asyncio.sleep(delay_s)
            delay_s = min(delay_s * 2, self.program.longest_delay_s)
            with contextlib.suppress(NotStartedError):  # out of memory or processes: it may work later
                self._launch()

    async def _end(self) -> str:
        """Wait until the process has ended and return how."""
        if self._process is None or self._ended is None:
            return "can't be started"
        code = await asyncio.shield(self._ended)
        _kill_group(self._process)  # what it started must not outlive it
        self._process = None
        self.deaths += 1
        self.refused_settings = code == EX_CONFIG
        self._on_change()
        return f"ended with status {code}" if code >= 0 else f"was killed by {signal.Signals(-code).name}"


async def stop_all(children: Iterable[Child], *, timeout_s: float) -> None:
    """Stop children by their ranks. What the first ones leave of the time is the last ones'."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + timeout_s
    by_rank = sorted(children, key=lambda child: child.program.stop_rank)
    for _, rank in itertools.groupby(by_rank, key=lambda child: child.program.stop_rank):
        left_s = max(0.0, deadline - loop.time())
        await asyncio.gather(*(child.stop(left_s) for child in rank))


async def run(
    name: str,
    launch: Launch,
    reaper: Reaper,
    *,
    timeout_s: float,
    start: Callable[[Launch], Process] = start,
) -> int:
    """Run a program to its end and return its code. It is killed when the time is over or this is cancelled."""
    process = _execute(name, launch, start)
    ended = reaper.ended(process)
    try:
        return await asyncio.wait_for(asyncio.shield(ended), timeout_s)
    except TimeoutError:
        raise NotStartedError(f"{name} did not finish within {timeout_s:.0f} s.") from None
    finally:
        if not ended.done():
            _kill_group(process)
            await asyncio.wait([ended])


def _execute(name: str, launch: Launch, start: Callable[[Launch], Process]) -> Process:
    try:
        return start(launch)
    except (OSError, subprocess.SubprocessError) as error:
        raise NotStartedError(f"{name} can't be started: {error}") from error


async def _ends(process: Process, ended: "asyncio.Future[int]", number: signal.Signals, timeout_s: float) -> bool:
    """Send a signal and tell whether the process ended in time."""
    with contextlib.suppress(ProcessLookupError):
        process.send_signal(number)
    done, _ = await asyncio.wait([ended], timeout=timeout_s)
    return bool(done)


def _kill_group(process: Process) -> None:
    """Kill a process and whatever it started that stayed in its group."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
