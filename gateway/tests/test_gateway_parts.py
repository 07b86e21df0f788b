"""The pure parts: breaker, addresses, route matching, feeds, the directory."""

import asyncio
from ipaddress import ip_network

import pytest
from gateway_stand import filled

from gateway.addresses import ClientAddresses
from gateway.breaker import FAILURES_TO_OPEN, PAUSE_S, CircuitBreaker
from gateway.changes import ChangeFeed
from gateway.directory import Directory
from gateway.exceptions import CircuitOpenError
from gateway.revocations import Revocations
from gateway.routes import ROUTES, RouteTable
from shared.claims import AccessClaims
from shared.errors import UnavailableError

SECRET = "0123456789abcdef-gateway-stand-secret-fedcba"


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


class ScriptedAsker:
    """Answers in order; the last one again and again."""

    def __init__(self, *answers) -> None:
        self.answers = list(answers)
        self.asked: list[str] = []

    async def get(self, target: str, *, timeout_s: float):
        self.asked.append(target)
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if callable(answer):
            answer = await answer()
        if isinstance(answer, Exception):
            raise answer
        return answer


def _opened(clock: Clock) -> CircuitBreaker:
    breaker = CircuitBreaker(clock)
    for _ in range(FAILURES_TO_OPEN):
        breaker.admit()
        breaker.failed()
    return breaker


def test_the_breaker_opens_at_the_fifth_failure_in_a_row_only() -> None:
    breaker = CircuitBreaker(Clock())
    for _ in range(3):
        for _ in range(FAILURES_TO_OPEN - 1):
            breaker.admit()
            breaker.failed()
        breaker.admit()
        breaker.succeeded()
    breaker.admit()


def test_an_open_breaker_refuses_then_lets_one_probe_through() -> None:
    clock = Clock()
    breaker = _opened(clock)
    with pytest.raises(CircuitOpenError) as refused:
        breaker.admit()
    assert int(refused.value.headers["Retry-After"]) >= 1
    clock.now += PAUSE_S
    breaker.admit()
    with pytest.raises(CircuitOpenError):
        breaker.admit()
    breaker.failed()
    with pytest.raises(CircuitOpenError):
        breaker.admit()
    clock.now += PAUSE_S
    breaker.admit()
    breaker.succeeded()
    breaker.admit()
    breaker.admit()


def test_a_probe_whose_client_left_is_given_to_the_next() -> None:
    clock = Clock()
    breaker = _opened(clock)
    clock.now += PAUSE_S
    breaker.admit()
    breaker.undecided()
    breaker.admit()


@pytest.mark.parametrize(
    ("trusted", "peer", "forwarded", "expected"),
    [
        ("", "10.0.0.1", ["1.2.3.4"], "10.0.0.1"),
        ("10.0.0.0/8", "192.0.2.1", ["1.2.3.4"], "192.0.2.1"),
        ("10.0.0.0/8", "10.0.0.1", [], "10.0.0.1"),
        ("10.0.0.0/8", "10.0.0.1", ["1.2.3.4"], "1.2.3.4"),
        ("10.0.0.0/8", "10.0.0.1", ["6.6.6.6, 1.2.3.4"], "1.2.3.4"),
        ("10.0.0.0/8", "10.0.0.1", ["6.6.6.6", "1.2.3.4"], "1.2.3.4"),
        ("10.0.0.0/8", "10.0.0.1", ["1.2.3.4, 10.0.0.2"], "1.2.3.4"),
        ("10.0.0.0/8", "10.0.0.1", ["10.0.0.3, 10.0.0.2"], "10.0.0.3"),
        ("10.0.0.0/8", "10.0.0.1", ["1.2.3.4:5678"], "1.2.3.4"),
        ("10.0.0.0/8", "10.0.0.1", ["junk, 10.0.0.2"], "10.0.0.2"),
        ("10.0.0.0/8", "10.0.0.1", ["junk"], "10.0.0.1"),
        ("10.0.0.0/8", "10.0.0.1", ["unknown, , 1.2.3.4 "], "1.2.3.4"),
        ("10.0.0.0/8", "10.0.0.1", ["1.2.3.4,"], "10.0.0.1"),
        ("10.0.0.0/8", "::ffff:10.0.0.1", ["1.2.3.4"], "1.2.3.4"),
        ("fd00::/8", "fd00::1", ["[2001:db8::7]:80"], "2001:db8::7"),
        ("fd00::/8", "fd00::1", ["2001:db8::7"], "2001:db8::7"),
        ("fd00::/8", "fd00::1", ["fe80::1%eth0"], "fd00::1"),
    ],
)
def test_only_trusted_proxies_are_believed(trusted: str, peer: str, forwarded: list[str], expected: str) -> None:
    networks = [ip_network(trusted)] if trusted else []
    addresses = ClientAddresses(networks)
    assert addresses.of((peer, 1), [value.encode() for value in forwarded]) == expected


def test_a_peer_without_an_address_has_none() -> None:
    assert ClientAddresses([]).of(None, [b"1.2.3.4"]) == ""


def test_every_route_is_found_at_its_address_and_nowhere_else() -> None:
    table = RouteTable()
    for route in ROUTES:
        found = table.match(filled(route, "0199aaaa-0000-7000-8000-000000000009").encode())
        assert found
        assert found[route.method] is route
        assert ("HEAD" in found) == ("GET" in found)
    for path in (
        b"",
        b"/",
        b"/api/v1/patients/",
        b"/api/v1/patients/a/b",
        b"/api/v1/patients/a/restore/x",
        b"/x/api/v1/patients",
    ):
        assert table.match(path) is None


@pytest.mark.parametrize(
    "segment", ["..", ".", ".hidden", "%2e", "a%2fb", "a;b", "a b", "a\\b", "a\n", "ü", "a" * 129, "a:b", "{id}", "*"]
)
def test_an_id_is_made_of_plain_characters(segment: str) -> None:
    assert RouteTable().match(f"/api/v1/patients/{segment}".encode()) is None


def _page(*sessions: str, last: int, reset: bool = False):
    changes = [{"seq": 1, "kind": "session-revoked", "practice_id": None, "session_id": one} for one in sessions]
    return 200, {"changes": changes, "last": last, **({"reset": True} if reset else {})}


def test_a_feed_follows_reloads_and_starts_over() -> None:
    clock, revocations = Clock(), Revocations()
    asker = ScriptedAsker(
        _page("a", last=7), _page("b", last=8), _page("c", last=2, reset=True), _page("d", last=3), _page(last=3)
    )
    feed = ChangeFeed(asker, revocations, service="auth-service", reload_s=300, clock=clock)
    assert not feed.is_current

    def poll() -> set[str]:
        asyncio.run(feed.poll())
        return set(revocations._refused_until)

    assert poll() == {"a"}
    assert feed.is_current
    assert poll() == {"a", "b"}
    assert poll() == {"c"}
    assert poll() == {"c", "d"}
    clock.now += 300
    assert poll() == set()
    assert asker.asked == [
        "/internal/changes",
        *(f"/internal/changes?after={n}" for n in (7, 8, 2)),
        "/internal/changes",
    ]


def test_a_feed_reads_on_until_it_knows_everything(monkeypatch: pytest.MonkeyPatch) -> None:
    """Half of the revoked sessions must never stand for all of them."""
    monkeypatch.setattr("gateway.changes.MAX_CHANGES", 2)
    clock, revocations = Clock(), Revocations()
    asker = ScriptedAsker(_page("a", "b", last=2), _page("c", "d", last=4), _page(last=4))
    feed = ChangeFeed(asker, revocations, service="auth-service", clock=clock)
    asyncio.run(feed.poll())
    assert set(revocations._refused_until) == {"a", "b", "c", "d"}
    assert asker.asked == ["/internal/changes", "/internal/changes?after=2", "/internal/changes?after=4"]


def test_a_feed_that_fails_half_way_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.changes.MAX_CHANGES", 2)
    revocations = Revocations()
    feed = ChangeFeed(ScriptedAsker(_page("a", "b", last=2), (500, None)), revocations, service="x", clock=Clock())
    asyncio.run(feed.poll())
    assert not feed.is_current
    assert len(revocations) == 0


@pytest.mark.parametrize(
    "nonsense",
    [
        (500, None),
        (200, None),
        (200, []),
        (200, {"changes": 1, "last": 1}),
        (200, {"changes": [1], "last": 1}),
        (404, {}),
    ],
)
def test_a_feed_that_answers_nonsense_changes_nothing_and_grows_old(nonsense) -> None:
    clock, revocations = Clock(), Revocations()
    feed = ChangeFeed(ScriptedAsker(_page("a", last=1), nonsense), revocations, service="x", clock=clock)
    for _ in range(3):
        asyncio.run(feed.poll())
    assert revocations.has_ended("a")
    assert feed.is_current
    clock.now += 901
    asyncio.run(feed.poll())
    assert not feed.is_current


def test_other_kinds_of_changes_and_broken_ones_revoke_and_suspend_nothing() -> None:
    revocations = Revocations()
    revocations.apply(
        [
            {"kind": "practice-suspended", "session_id": "x"},
            {"kind": "practice-suspended", "practice_id": None},
            {"kind": "practice-suspended", "practice_id": ["x"]},
            {"kind": "practice-moved", "practice_id": "x", "session_id": "x"},
            {"kind": "session-revoked"},
            {"kind": "session-changed", "session_id": "x"},
            {"kind": "session-changed", "session_id": "x", "at": "1"},
            {"kind": "session-changed", "at": 1},
            {},
            {"kind": "session-revoked", "session_id": None, "practice_id": "x"},
            {"kind": "practice-resumed"},
        ]
    )
    assert len(revocations) == 0
    assert revocations.suspended == set()


def test_a_changed_session_refuses_the_tokens_that_it_had() -> None:
    revocations = Revocations()

    def refused_at(issued_at: int) -> bool:
        claims = AccessClaims("person", "practice", "s", "owner", "token", issued_at=issued_at, expires_at=9999)
        return revocations.refuses(claims)

    assert not refused_at(0)
    revocations.apply([{"kind": "session-changed", "session_id": "s", "at": 100}])
    assert [refused_at(at) for at in (99, 100, 101)] == [True, True, False]
    revocations.apply([{"kind": "session-changed", "session_id": "s", "at": 90}])
    assert refused_at(100)
    assert not revocations.has_ended("s")
    revocations.apply([{"kind": "session-revoked", "session_id": "s"}])
    revocations.apply([{"kind": "session-changed", "session_id": "s", "at": 200}])
    assert refused_at(10**10)
    assert revocations.has_ended("s")


def _suspensions(*changes: tuple[str, str], last: int, reset: bool = False):
    listed = [{"seq": 1, "kind": f"practice-{kind}", "practice_id": one, "session_id": None} for kind, one in changes]
    return 200, {"changes": listed, "last": last, **({"reset": True} if reset else {})}


def test_suspensions_follow_the_feed_in_its_order() -> None:
    clock, revocations = Clock(), Revocations()
    asker = ScriptedAsker(
        _suspensions(("suspended", "p"), ("suspended", "q"), last=7),
        _suspensions(("resumed", "p"), last=8),
        _suspensions(("suspended", "p"), ("resumed", "p"), ("suspended", "p"), ("resumed", "q"), last=12),
        (500, None),
        _suspensions(("resumed", "p"), ("suspended", "p"), ("resumed", "p"), last=15),
        _suspensions(("suspended", "r"), last=2, reset=True),
        _suspensions(("suspended", "s"), last=2),
    )
    feed = ChangeFeed(asker, revocations, service="auth-service", reload_s=300, clock=clock)

    def poll() -> set[str]:
        asyncio.run(feed.poll())
        return revocations.suspended

    assert poll() == {"p", "q"}
    assert poll() == {"q"}
    assert poll() == {"p"}
    assert poll() == {"p"}, "what is known stays while the feed fails"
    assert poll() == set()
    assert poll() == {"r"}
    clock.now += 300
    assert poll() == {"s"}, "read anew"


def test_a_suspension_in_the_first_part_of_the_whole_list_is_undone_by_a_later_part(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("gateway.changes.MAX_CHANGES", 2)
    revocations = Revocations()
    asker = ScriptedAsker(
        _suspensions(("suspended", "p"), ("suspended", "q"), last=4),
        _suspensions(("suspended", "r"), ("resumed", "p"), last=9),
        _suspensions(last=9),
    )
    asyncio.run(ChangeFeed(asker, revocations, service="auth-service", clock=Clock()).poll())
    assert revocations.suspended == {"q", "r"}


def test_an_answer_that_was_overtaken_by_a_change_is_not_remembered() -> None:
    """The look-up began before the move, its answer came after the change: the old place must not stick."""

    async def scenario() -> list[str]:
        released = asyncio.Event()

        async def old():
            await released.wait()
            return 200, {"shard": "a/shard_00000000old0"}

        directory = Directory(ScriptedAsker(old, (200, {"shard": "b/shard_00000000new0"})))
        first = asyncio.create_task(directory.shard_of("p"))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        directory.apply([{"kind": "shard-moved", "practice_id": "p"}])
        released.set()
        return [await first, await directory.shard_of("p"), await directory.shard_of("p")]

    assert asyncio.run(scenario()) == ["a/shard_00000000old0", "b/shard_00000000new0", "b/shard_00000000new0"]


def test_a_caller_that_leaves_does_not_take_the_answer_from_others() -> None:
    async def scenario() -> str:
        released = asyncio.Event()

        async def slow():
            await released.wait()
            return 200, {"shard": "a/shard_0000000000"}

        directory = Directory(ScriptedAsker(slow))
        first, second = (asyncio.create_task(directory.shard_of("p")) for _ in range(2))
        await asyncio.sleep(0)
        first.cancel()
        released.set()
        return await second

    assert asyncio.run(scenario()) == "a/shard_0000000000"


def test_the_directory_is_bounded_and_remembers_no_failure() -> None:
    async def scenario() -> Directory:
        directory = Directory(ScriptedAsker((503, None), (200, {"shard": "a/shard_0000000000"})), max_entries=10)
        with pytest.raises(UnavailableError):
            await directory.shard_of("p0")
        for number in range(30):
            await directory.shard_of(f"p{number}")
            await asyncio.sleep(0)
        return directory

    directory = asyncio.run(scenario())
    assert len(directory._shards) == 10
    assert not directory._asked
