"""Clients that keep signing up and writing patients while something breaks, and remember what they were promised."""

import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self

import httpx
from e2e_api import PATIENT, PATIENTS, SIGNUP, Practice, new_sign_up, patient_path
from e2e_stack import BACK_WITHIN_S, EmbeddedStack, eventually

PATIENT_PAUSE_S = 0.02
SIGN_UP_PAUSE_S = 0.2
"""Between two calls of one client: on two cores the stack must also find time to recover, and each sign-up makes some
three hundred files that a killed PostgreSQL has to write out again."""
CALLS_AT_ONCE = 16
TRANSPORT = 0
"""Noted instead of a status when the connection itself broke."""


@dataclass
class Promises:
    """What was answered. Statuses by kind of call; ids only where the answer was a success."""

    sign_ups: Counter[int] = field(default_factory=Counter)
    patient_calls: Counter[int] = field(default_factory=Counter)
    practices: dict[str, str] = field(default_factory=dict)
    """E-mail by practice id."""
    patients: list[tuple[Practice, str]] = field(default_factory=list)


class Traffic:
    """Two clients sign up, two write and read patients, as long as the context lasts."""

    def __init__(self, stack: EmbeddedStack, practices: list[Practice]) -> None:
        self.promises = Promises()
        self._client = httpx.Client(base_url=stack.url, timeout=30)
        self._practices = practices
        self._over = threading.Event()
        self._threads = [threading.Thread(target=self._sign_up) for _ in range(2)] + [
            threading.Thread(target=self._write, args=(practices[number::2],)) for number in range(2)
        ]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, fault: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join()
        self._client.close()

    def wait_for_more(self, *, sign_ups: int, patients: int, timeout_s: float = 30) -> None:
        """Waits until so many more of both have succeeded."""
        practices_then, patients_then = len(self.promises.practices), len(self.promises.patients)
        eventually(
            lambda: (
                len(self.promises.practices) >= practices_then + sign_ups
                and len(self.promises.patients) >= patients_then + patients
            ),
            f"{sign_ups} more sign-ups and {patients} more patients; so far {self.promises.sign_ups} and"
            f" {self.promises.patient_calls}",
            timeout_s=timeout_s,
        )

    def _call(self, method: str, path: str, seen: Counter[int], **parts: object) -> httpx.Response | None:
        time.sleep(SIGN_UP_PAUSE_S if path == SIGNUP else PATIENT_PAUSE_S)
        try:
            answer = self._client.request(method, path, **parts)  # type: ignore[arg-type]
        except httpx.TransportError:
            seen[TRANSPORT] += 1
            return None
        seen[answer.status_code] += 1
        return answer

    def _sign_up(self) -> None:
        while not self._over.is_set():
            body = new_sign_up()
            answer = self._call("POST", SIGNUP, self.promises.sign_ups, json=body)
            if answer is not None and answer.status_code == 201:
                self.promises.practices[answer.json()["result"]["id"]] = body["email"]

    def _write(self, practices: list[Practice]) -> None:
        seen = self.promises.patient_calls
        while not self._over.is_set():
            for practice in practices:
                headers = {"Authorization": f"Bearer {practice.token}"}
                answer = self._call("POST", PATIENTS, seen, json=PATIENT, headers=headers)
                if answer is None or answer.status_code != 201:
                    continue
                patient_id = answer.json()["result"]["id"]
                self.promises.patients.append((practice, patient_id))
                self._call("GET", patient_path(patient_id), seen, headers=headers)


def read_anew(practice: Practice) -> int:
    """Status of a read on a connection of its own, for which any gateway may be chosen; TRANSPORT if it broke."""
    headers = {"Authorization": f"Bearer {practice.token}", "Connection": "close"}
    try:
        return httpx.get(f"{practice.api.url}{PATIENTS}", headers=headers, timeout=30).status_code
    except httpx.TransportError:
        return TRANSPORT


def read_all(practices: list[Practice]) -> Counter[int]:
    """The statuses of five reads of each practice, many at once."""
    with ThreadPoolExecutor(CALLS_AT_ONCE) as pool:
        return Counter(pool.map(read_anew, practices * 5))


class Reading:
    """A client that reads one practice after the other, as long as the context lasts."""

    def __init__(self, practices: list[Practice]) -> None:
        self.seen: Counter[int] = Counter()
        self._practices = practices
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._read)

    def __enter__(self) -> Self:
        self._thread.start()
        self.wait_for_more(len(self._practices))
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def wait_for_more(self, count: int) -> None:
        """Waits until so many more reads have succeeded."""
        then = self.seen[200]
        eventually(lambda: self.seen[200] >= then + count, f"{count} more reads", timeout_s=BACK_WITHIN_S)

    def _read(self) -> None:
        while not self._over.is_set():
            for practice in self._practices:
                self.seen[read_anew(practice)] += 1
