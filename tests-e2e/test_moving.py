"""Practices move between two servers while their people work: promises are kept, refusals say for how long."""

import os
import signal
import threading
import time
from collections import Counter
from collections.abc import Iterator
from types import TracebackType
from typing import Any, Self

import httpx
import pytest
from e2e_api import PATIENT, PATIENTS, Api, Practice
from e2e_stack import EmbeddedStack, StackFactory, eventually

PAUSE_S = 0.005


@pytest.fixture(scope="module")
def fleet(new_stack: StackFactory) -> EmbeddedStack:
    return new_stack(EMBEDDED_SERVERS="2").start()


@pytest.fixture(scope="module")
def api(fleet: EmbeddedStack) -> Iterator[Api]:
    client = Api(fleet.url)
    yield client
    client.close()


def places(fleet: EmbeddedStack) -> dict[str, str]:
    """The server of each practice."""
    return {row["id"]: row["server"] for row in fleet.command_json("practices", "list")}


class AtWork:
    """People of a practice: some write, one reads, as long as the context lasts; what they were answered."""

    def __init__(self, url: str, practice: Practice) -> None:
        self._practice = practice
        self._client = httpx.Client(base_url=url, timeout=30)
        self._over = threading.Event()
        self.statuses: Counter[int] = Counter()
        self.faults: list[str] = []
        self.promised: set[str] = set()
        self._threads = [threading.Thread(target=deed) for deed in (self._write, self._write, self._read)]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        self.wait_for_more()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, fault: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join()
        self._client.close()

    def wait_for_more(self, count: int = 10) -> None:
        """Until so many more patients are promised."""
        then = len(self.promised)
        eventually(lambda: len(self.promised) >= then + count, "they can work", timeout_s=30)

    def _write(self) -> None:
        self._work("POST", json=PATIENT)

    def _read(self) -> None:
        self._work("GET", params={"limit": 5})

    def _work(self, method: str, **parts: Any) -> None:
        headers = {"Authorization": f"Bearer {self._practice.token}"}
        while not self._over.is_set():
            time.sleep(PAUSE_S)
            answer = self._client.request(method, PATIENTS, headers=headers, **parts)
            self.statuses[answer.status_code] += 1
            if answer.status_code == 201:
                self.promised.add(answer.json()["result"]["id"])
            elif answer.status_code != 200 and (answer.status_code != 503 or "retry-after" not in answer.headers):
                self.faults.append(f"{answer.status_code} {dict(answer.headers)} {answer.text}")


def all_patients(practice: Practice) -> set[str]:
    found: set[str] = set()
    query: dict[str, Any] = {"limit": 1000}
    while True:
        result = practice.get(PATIENTS, params=query).json()["result"]
        found |= {patient["id"] for patient in result["data"]}
        if "next_cursor" not in result:
            return found
        query["cursor"] = result["next_cursor"]


def test_while_a_practice_moves_there_and_back_its_people_work(fleet: EmbeddedStack, api: Api) -> None:
    practice, neighbour = Practice.join(api), Practice.join(api)
    home = places(fleet)[practice.id]
    away = "b" if home == "a" else "a"
    with AtWork(fleet.url, practice) as people, AtWork(fleet.url, neighbour) as others:
        for origin, to in ((home, away), (away, home)):
            moved = fleet.command_json("practices", "move", practice.id, "--to", to)
            assert set(moved) == {"practice", "from", "to", "rows", "fence_ms", "result"}
            assert (moved["from"], moved["to"], moved["result"]) == (origin, to, "moved")
            assert moved["rows"] > 0
            assert places(fleet)[practice.id] == to
            people.wait_for_more()
    assert people.faults == others.faults == []
    assert set(others.statuses) <= {200, 201}
    assert set(people.statuses) <= {200, 201, 503}
    assert people.promised <= all_patients(practice)
    assert others.promised == all_patients(neighbour)
    assert fleet.command_json("practices", "verify-isolation")["ok"] is True


def test_a_move_outlives_the_service_that_does_it(fleet: EmbeddedStack, api: Api) -> None:
    practice = Practice.join(api)
    for _ in range(3):
        origin = places(fleet)[practice.id]
        to = "b" if origin == "a" else "a"
        outcome: dict[str, Any] = {}

        def move(to: str = to, outcome: dict[str, Any] = outcome) -> None:
            outcome.update(fleet.command_json("practices", "move", practice.id, "--to", to))

        with AtWork(fleet.url, practice) as people:
            command = threading.Thread(target=move)
            command.start()
            time.sleep(0.7)  # the command itself takes most of that
            os.kill(fleet.status()["tenant-service"]["pid"], signal.SIGKILL)
            command.join()
            people.wait_for_more()
        assert outcome["result"] == "moved"
        assert places(fleet)[practice.id] == to
        assert people.promised <= all_patients(practice)
        assert people.faults == []


def test_what_cannot_be_moved_is_told(fleet: EmbeddedStack, api: Api) -> None:
    practice = Practice.join(api)
    home = places(fleet)[practice.id]
    refused = fleet.command("practices", "move", practice.id, "--to", home, "--json")
    assert (refused.returncode, refused.stdout) == (1, "")
    assert f"The practice is on server {home}." in refused.stderr


def test_a_drained_server_is_emptied(fleet: EmbeddedStack, api: Api) -> None:
    practices = [Practice.join(api) for _ in range(4)]
    for practice in practices:
        practice.new_patient()
    assert set(places(fleet).values()) == {"a", "b"}
    listed = {server["key"]: server for server in fleet.command_json("servers", "drain", "a")}
    assert (listed["a"]["state"], listed["a"]["practices"]) == ("draining", 0)
    assert set(places(fleet).values()) == {"b"}
    for practice in practices:
        assert len(practice.patients()) == 1
    nowhere = fleet.command("servers", "drain", "b", "--json")
    assert nowhere.returncode == 1
    assert practices[0].id in nowhere.stderr
    for key in "ab":
        fleet.command_json("servers", "open", key)
    assert all(practice.patients() for practice in practices)
