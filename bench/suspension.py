"""How soon a suspension is felt, and its end: from the admin's call to the practice's first other answer.

`python bench/suspension.py [REPETITIONS]` (50) on an embedded stack of its own. Between two deeds it waits a random
part of a second: a deed that always followed a gateway's poll would always wait for a whole one.
"""

import base64
import http.client
import random
import secrets
import statistics
import sys
import time

from practices import PATIENTS, Practice, make
from stand import running_stack, temporary_home

ASK_EVERY_S = 0.005
ADMIN = ("the-admin", secrets.token_hex(12))
STATUS_AFTER = {"suspend": 403, "resume": 200}


def main() -> None:
    """Measures and prints."""
    repetitions = int(sys.argv[1]) if len(sys.argv) > 1 else 50
    credentials = {"ADMIN_USER_NAME": ADMIN[0], "ADMIN_PASSWORD": ADMIN[1]}
    with temporary_home() as home, running_stack(home, **credentials) as stand:
        [practice] = make(stand, "practice", 1, patients=1)
        connection = http.client.HTTPConnection("127.0.0.1", stand.port, timeout=30)
        found: dict[str, list[float]] = {deed: [] for deed in STATUS_AFTER}
        for _ in range(repetitions):
            for deed, taken in found.items():
                time.sleep(random.random())
                taken.append(_felt_after_s(connection, practice, deed))
        connection.close()
    for deed, taken in found.items():
        print(f"{deed}: p50 {statistics.median(taken):.2f} s, max {max(taken):.2f} s of {len(taken)}")


def _felt_after_s(connection: http.client.HTTPConnection, practice: Practice, deed: str) -> float:
    began = time.perf_counter()
    basic = base64.b64encode(":".join(ADMIN).encode()).decode()
    address = f"/api/v1/admin/practices/{practice.id}/{deed}"
    assert _status(connection, "POST", address, f"Basic {basic}") == http.client.OK
    while _status(connection, "GET", PATIENTS, f"Bearer {practice.token}") != STATUS_AFTER[deed]:
        time.sleep(ASK_EVERY_S)
    return time.perf_counter() - began


def _status(connection: http.client.HTTPConnection, method: str, path: str, authorization: str) -> int:
    connection.request(method, path, headers={"Authorization": authorization})
    answer = connection.getresponse()
    answer.read()
    return answer.status


if __name__ == "__main__":
    main()
