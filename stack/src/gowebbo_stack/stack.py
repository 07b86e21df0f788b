"""The whole embedded stack: what is started in which order, and what is stopped in which."""

import asyncio
import math
import signal
import socket
import time
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Mapping

from gowebbo_stack.forking import ForkServer
from gowebbo_stack.launching import Launch, ordinary_identity
from gowebbo_stack.logs import Logs
from gowebbo_stack.plan import Plan, make_plan, postgres_name
from gowebbo_stack.postgres import Postgres
from gowebbo_stack.probes import http_get
from gowebbo_stack.progress import Progress
from gowebbo_stack.register import Register
from gowebbo_stack.services import Services, common_environment
from gowebbo_stack.settings import Settings
from gowebbo_stack.supervision import Child, NotStartedError, Program, Reaper, run, stop_all
from gowebbo_stack.valkey import Valkey

_STEP_TIMEOUT_S = 120.0
_READY_TIMEOUT_S = 120.0
_RECOVERY_TIMEOUT_S = 3600.0  # PostgreSQL replays its log after a hard stop: given up, it would only begin anew
_RECOVERY_NOTICE_S = 5.0
_STOP_TIMEOUT_S = 12.5  # of the 15 s that people are promised; PostgreSQL may then need a moment to end at once
_POLL_S = 0.03
_DEATHS_ALLOWED = 4  # of one process while the stack starts: more would not help
_REFUSAL_GRACE_S = 1.0  # others may refuse their settings too: all faults are told at once
_HTTP_OK = 200


class Stack:
    """One running stack. Everything happens in the main thread's loop."""

    def __init__(self, settings: Settings, secrets: Mapping[str, str], progress: Progress) -> None:
        self._settings = settings
        self._secrets = secrets
        self._progress = progress
        self._home = settings.home
        self._logs = Logs(settings.home.logs)
        self._reaper = Reaper()
        self._fork_server = ForkServer()
        self._children: list[Child] = []
        self._plan: Plan | None = None
        self._register = Register(settings.home, {})

    async def run(self, gateway: socket.socket, stop: asyncio.Event) -> None:
        """Start everything behind the gateway's socket, keep it running until `stop` is set, stop everything."""
        with self._reaper:
            starting = asyncio.create_task(self._start(gateway))
            stopping = asyncio.create_task(stop.wait())
            try:
                await asyncio.wait({starting, stopping}, return_when=asyncio.FIRST_COMPLETED)
                if not stop.is_set():
                    starting.result()
                    await stopping
                self._progress.say("Stopping …")
            finally:
                starting.cancel()
                stopping.cancel()
                await asyncio.gather(starting, stopping, return_exceptions=True)
                await self._stop()

    async def _start(self, gateway: socket.socket) -> None:
        began = time.monotonic()
        # It imports while the servers start.
        self._fork_server.open(common_environment(self._settings), self._logs.begin("forkserver"))
        self._plan = plan = await self._make_plan(gateway)  # keeps the sockets open
        self._register = Register(self._home, plan.entries, ports=plan.ports, run_folder=str(plan.sockets))
        services = Services(self._settings, self._secrets, plan.addresses, start=self._fork_server.start)
        servers = {"redis": plan.redis} | {postgres_name(key): server for key, server in plan.postgres.items()}
        await _together(self._start_server(name, server) for name, server in servers.items())
        await self._fork_server.imported()
        await self._prepare(services, plan.postgres)
        await self._start_services(services, plan)
        self._register.ready = True
        self._register.write()
        self._progress.ready(
            seconds=time.monotonic() - began,
            url=self._settings.public_url,
            mailbox_url=plan.mailbox_url,
            admin=(self._secrets["ADMIN_USER_NAME"], self._secrets["ADMIN_PASSWORD"]),
            home=self._home.path,
        )

    async def _make_plan(self, gateway: socket.socket) -> Plan:
        ports = (self._home.read_state() or {}).get("ports", {})
        for name in await asyncio.to_thread(self._home.remove_leftovers):
            self._progress.say(f"{name} of an earlier run was still there and has been ended")
        return make_plan(
            self._settings,
            self._secrets,
            gateway=gateway,
            identity=ordinary_identity(),
            preferred_ports=ports,
        )

    async def _start_server(self, name: str, server: Postgres | Valkey) -> None:
        postgres = isinstance(server, Postgres)
        with self._progress.step(name.replace("postgres", "PostgreSQL") if postgres else "Valkey"):
            await asyncio.to_thread(server.initialise)
            child = self._keep(
                Program(
                    name,
                    server.launch(self._home.logs / f"{name}.log"),
                    stop_signal=signal.SIGINT if postgres else signal.SIGTERM,
                    stop_rank=5 if postgres else 4,
                    # It writes out what it holds: databases just made are 300 files each. Ended at once it loses
                    # nothing, but must go through its log again.
                    stop_timeout_s=math.inf if postgres else 2.0,
                    crash_signal=signal.SIGQUIT if postgres else None,
                    longest_delay_s=1.0,  # all wait for it, and what stops it from starting passes quickly
                    before_start=server.before_start,
                )
            )
            notice = asyncio.get_running_loop().call_later(
                _RECOVERY_NOTICE_S,
                self._progress.say,
                f"{name} takes its time: after a hard stop it goes through its log, and nothing is lost",
            )
            try:
                await self._wait(
                    lambda: asyncio.to_thread(server.accepts_connections),
                    [child],
                    name,
                    timeout_s=_RECOVERY_TIMEOUT_S if postgres else _READY_TIMEOUT_S,
                )
            finally:
                notice.cancel()

    async def _prepare(self, services: Services, keys: Iterable[str]) -> None:
        with self._progress.step("Databases and roles"):
            await _together(self._run_step(services.prepare(key)) for key in keys)
        with self._progress.step("Migrations"):
            await _together(self._run_step(launch) for launch in services.migrations())

    async def _start_services(self, services: Services, plan: Plan) -> None:
        listeners = plan.listeners
        with self._progress.step("Services"):
            for program in (
                services.tenant(listeners["tenant-service"]),
                services.auth(listeners["auth-service"]),
                *(services.gateway(name, plan.gateway, listeners[name]) for name in self._settings.gateways),
                *(services.patient(name, listeners[name]) for name in self._settings.patient_services),
                services.notifier(listeners["notifier"]),
                services.worker(),
                services.mailbox(plan.smtp, plan.page),
            ):
                self._keep(program)
            await self._wait(self._is_ready, self._children, "gateway")

    async def _is_ready(self) -> bool:
        return not await self._what_is_missing()

    def _keep(self, program: Program) -> Child:
        self._logs.begin(program.name)
        child = Child(program, self._reaper, on_change=self._register.write, announce=self._progress.say)
        self._children.append(child)
        self._register.add(child)
        child.start()
        return child

    async def _run_step(self, launch: Launch) -> None:
        assert launch.log is not None
        name = launch.log.stem
        self._logs.begin(name)
        code = await run(name, launch, self._reaper, timeout_s=_STEP_TIMEOUT_S, start=self._fork_server.start)
        if code != 0:
            raise NotStartedError(f"{name} failed with status {code}:\n{self._logs.tail(name)}")

    async def _wait(
        self,
        ready: Callable[[], Awaitable[bool]],
        children: list[Child],
        name: str,
        *,
        timeout_s: float = _READY_TIMEOUT_S,
    ) -> None:
        """Wait until something is ready; give up early when a process refuses its settings or keeps dying."""
        probing = asyncio.create_task(_until(ready))
        giving_up = asyncio.create_task(self._until_hopeless(children))
        try:
            await asyncio.wait({probing, giving_up}, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
            if giving_up.done():
                giving_up.result()
            if not probing.done():
                raise NotStartedError("\n".join([self._story(name), *await self._what_is_missing()]))
        finally:
            probing.cancel()
            giving_up.cancel()
            await asyncio.gather(probing, giving_up, return_exceptions=True)

    async def _until_hopeless(self, children: list[Child]) -> None:
        def hopeless() -> list[Child]:
            return [c for c in children if c.refused_settings or c.deaths >= _DEATHS_ALLOWED]

        while not hopeless():  # noqa: ASYNC110 -- many children, one question
            await asyncio.sleep(_POLL_S)
        await asyncio.sleep(_REFUSAL_GRACE_S)
        raise NotStartedError("\n".join(self._story(child.program.name) for child in hopeless()))

    def _story(self, name: str) -> str:
        return f"{name} does not become ready:\n{self._logs.tail(name)}"

    async def _what_is_missing(self) -> list[str]:
        """Return the answers of those that are not ready; of several processes, each is asked on its own socket."""
        assert self._plan is not None
        processes = (*self._settings.gateways, *self._settings.patient_services)
        urls = [self._settings.public_url, *map(self._plan.addresses.service, processes)]
        answers = await asyncio.gather(*(http_get(url, "/readyz") for url in urls))
        return [
            f"{url}/readyz: {status} {body[:500]}"
            for url, (status, body) in zip(urls, answers, strict=True)
            if status != _HTTP_OK
        ]

    async def _stop(self) -> None:
        """Stop all, those first that use the others."""
        if self._plan:
            self._plan.gateway.close()  # from now on clients are refused instead of kept waiting
        await stop_all(self._children, timeout_s=_STOP_TIMEOUT_S)
        self._fork_server.close()
        self._home.remove_run_folder()


async def _until(ready: Callable[[], Awaitable[bool]]) -> None:
    while not await ready():  # noqa: ASYNC110 -- the answer is in another process
        await asyncio.sleep(_POLL_S)


async def _together(deeds: Iterable[Coroutine[None, None, None]]) -> None:
    """Do things at once; when one fails the others are cancelled, and its error is raised as it is."""
    try:
        async with asyncio.TaskGroup() as group:
            for deed in deeds:
                group.create_task(deed)
    except BaseExceptionGroup as failed:
        raise failed.exceptions[0] from None
