"""Two gateways and two patient services in one stack: each practice keeps to one process, each process dies alone."""

from collections.abc import Iterator
from pathlib import Path

import httpx
import psutil
import pytest
from e2e_api import PATIENTS, Api, Practice
from e2e_stack import BACK_WITHIN_S, EmbeddedStack, StackFactory, eventually, kill_and_wait, pids_of, rows
from e2e_traffic import TRANSPORT, Reading, read_all

PRACTICES = 16
SEVERAL = ("gateway", "patient-service")
CONNECTIONS = (
    "SELECT datname, client_port FROM pg_stat_activity"
    " WHERE starts_with(datname, 'shard_') AND starts_with(usename, 'shard_')"
)


@pytest.fixture(scope="module")
def several(new_stack: StackFactory) -> EmbeddedStack:
    """The stack. Its home is no place for PostgreSQL's socket: by TCP one sees whose a connection is."""
    return new_stack(home="by TCP", GATEWAY_PROCESSES="2", PATIENT_PROCESSES="2").start()


@pytest.fixture(scope="module")
def practices(several: EmbeddedStack) -> Iterator[list[Practice]]:
    """Practices with a patient each."""
    api = Api(several.url)
    joined = [Practice.join(api) for _ in range(PRACTICES)]
    for one in joined:
        one.new_patient()
    yield joined
    api.close()


def local_ports(pid: int) -> set[int]:
    """The own ends of a process's connections."""
    return {one.laddr.port for one in psutil.Process(pid).net_connections("tcp")}


def places(stack: EmbeddedStack) -> dict[str, list[int]]:
    """For each shard's database the patient services (0, 1) that are connected to it, one for each connection."""
    ports = [local_ports(pid) for pid in pids_of(stack.status()["patient-service"])]
    found: dict[str, list[int]] = {}
    for database, port in rows(stack.dsn(), CONNECTIONS):
        found.setdefault(database, []).extend(number for number, own in enumerate(ports) if port in own)
    return found


def metrics_at(path: Path) -> str:
    """What a process counts, by its own socket."""
    with httpx.Client(transport=httpx.HTTPTransport(uds=str(path))) as client:
        return client.get("http://gateway/metrics").text


def databases(stack: EmbeddedStack) -> dict[str, str]:
    """The database of each practice."""
    return {one["id"]: one["database"] for one in stack.command_json("practices", "list")}


def test_status_names_both_and_no_other_entry_changes(several: EmbeddedStack) -> None:
    shown = several.status()
    for name, entry in shown.items():
        assert ("pids" in entry, "pid" in entry) == (name in SEVERAL, name not in SEVERAL)
        assert all(psutil.pid_exists(pid) for pid in pids_of(entry))
    for name in SEVERAL:
        assert len(set(pids_of(shown[name]))) == 2
        assert (several.home / "logs" / f"{name}-2.log").exists()
    assert shown["gateway"]["url"] == several.url


def test_both_gateways_take_calls(several: EmbeddedStack, practices: list[Practice]) -> None:
    sockets = Path(several.status()["patient-service"]["url"].removeprefix("unix:")).parent

    def both_have_answered() -> bool:
        assert set(read_all(practices)) == {200}
        return all(f'route="{PATIENTS}"' in metrics_at(sockets / name) for name in ("gateway.sock", "gateway-2.sock"))

    eventually(both_have_answered, "calls that each of the gateways answered", timeout_s=60)


def test_a_practice_has_one_connection_in_one_of_the_processes(
    several: EmbeddedStack, practices: list[Practice]
) -> None:
    assert set(read_all(practices)) == {200}
    found = places(several)
    assert set(databases(several).values()) == set(found)
    assert {database: held for database, held in found.items() if len(held) != 1} == {}
    assert {held[0] for held in found.values()} == {0, 1}, "sixteen practices in one place would be no chance"


@pytest.mark.parametrize("number", [0, 1])
def test_a_killed_patient_service_is_missed_by_its_own_practices_only(
    several: EmbeddedStack, practices: list[Practice], number: int
) -> None:
    assert set(read_all(practices)) == {200}
    before = places(several)
    where = databases(several)
    own = [one for one in practices if before[where[one.id]] == [number]]
    others = [one for one in practices if one not in own]
    with Reading(others) as unaffected, Reading(own) as affected:
        kill_and_wait(several, "patient-service", number)
        eventually(lambda: set(read_all(own)) == {200}, "its practices' calls succeed", timeout_s=BACK_WITHIN_S)
    assert set(unaffected.seen) == {200}
    assert set(affected.seen) <= {200, 502, 503, 504}
    eventually(lambda: places(several) == before, "every practice has its one connection", timeout_s=BACK_WITHIN_S)


@pytest.mark.parametrize("number", [0, 1])
def test_a_killed_gateway_leaves_the_port_to_the_other(
    several: EmbeddedStack, practices: list[Practice], number: int
) -> None:
    with Reading(practices) as traffic:
        kill_and_wait(several, "gateway", number, until=lambda: traffic.wait_for_more(PRACTICES))
        eventually(lambda: set(read_all(practices)) == {200}, "all calls succeed", timeout_s=BACK_WITHIN_S)
    assert set(traffic.seen) <= {200, 503, TRANSPORT}
    assert {len(held) for held in places(several).values()} == {1}


def test_the_stack_stops_with_all_of_them(several: EmbeddedStack) -> None:
    children = several.descendants()
    assert several.stop() == 0
    assert [one for one in children if one.is_running()] == []
