"""`make bench-lifecycle`: what moving, backing up, restoring and asking take; writes bench/lifecycle.md.

On an embedded stack of two PostgreSQL servers. A practice moves there and back, once at rest and once while four
clients write; the fence is the time in which its calls are refused.
"""

import argparse
import http.client
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import machine
from practices import PATIENT, PATIENTS, Practice, make
from stand import Stand, running_stack, temporary_home

RESULTS = Path(__file__).with_name("lifecycle.md")
GOWEBBO = Path(sys.executable).with_name("gowebbo")
WRITERS = 4
BYTES_A_PATIENT = 145
"""With its indexes."""
QUESTION = "select count(*) from patients"


def main() -> None:
    """Measures and writes."""
    options = _options()
    lines = ["# What a shard's life takes", "", "Written by `make bench-lifecycle`.", "", *machine.described(), ""]
    settings = {"EMBEDDED_SERVERS": 2, "TOKEN_EXPIRE_IN": "24hr"}
    with temporary_home() as home, running_stack(home, **settings) as stand:
        lines += ["| MB | moved | of these s fenced: at rest | while four clients write | refused writes | lost |"]
        lines += ["| --: | --: | --: | --: | --: | --: |"]
        _command(stand, "servers", "drain", "b", "--keep")  # all begin on the first server, where SQL fills them
        sized = [_sized(stand, megabytes) for megabytes in options.megabytes]
        make(stand, "many", options.practices, patients=20)
        _command(stand, "servers", "open", "b")
        lines += [_moved(stand, practice) for practice in sized]
        lines += ["", "| MB | backed up, s | file, MB | restored beside it, s | compared, s | swapped, s |"]
        lines += ["| --: | --: | --: | --: | --: | --: |"]
        lines += [_backed_up(stand, practice) for practice in sized]
        found, taken_s = _command(stand, "fleet", "query", QUESTION)
        asked = f"{len(found['answered'])} practices answered `{QUESTION}` in {taken_s:.1f} s, "
        lines += ["", asked + "the command's own start included; none failed." if not found["failed"] else "FAILED"]
    RESULTS.write_text("\n".join(lines) + "\n")
    sys.stdout.write(RESULTS.read_text())


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--megabytes", type=int, nargs="+", default=[10, 100, 1000], help="of the practices that move")
    parser.add_argument("--practices", type=int, default=200, help="how many are asked (200)")
    return parser.parse_args()


def _sized(stand: Stand, megabytes: int) -> Practice:
    [practice] = make(stand, f"sized-{megabytes}", 1, patients=0)
    with stand.sql(practice.database) as cursor:
        cursor.execute(
            "INSERT INTO patients (id, name, mobile, age)"
            " SELECT uuidv7(), 'Patient ' || n, '98765' || lpad(n::text, 8, '0'), n %% 100"
            " FROM generate_series(1, %s) n",
            (megabytes * 1_000_000 // BYTES_A_PATIENT,),
        )
        cursor.execute("VACUUM (ANALYZE) patients")
    return practice


def _megabytes(stand: Stand, practice: Practice) -> int:
    with stand.sql("postgres") as cursor:
        cursor.execute("SELECT pg_database_size(%s) / 1000000", (practice.database,))
        return int(cursor.fetchone()[0])


def _moved(stand: Stand, practice: Practice) -> str:
    megabytes = _megabytes(stand, practice)
    quiet, taken_s = _command(stand, "practices", "move", practice.id, "--to", "b")
    with _writing(stand, practice) as promised:
        time.sleep(1)
        busy, _ = _command(stand, "practices", "move", practice.id, "--to", "a")
        time.sleep(1)
    with stand.sql(practice.database) as cursor:
        cursor.execute("SELECT id::text FROM patients WHERE name = 'Patient A'")
        there = {row[0] for row in cursor.fetchall()}
    lost = len(promised.ids - there)
    refused = promised.statuses[http.client.SERVICE_UNAVAILABLE]
    assert set(promised.statuses) <= {http.client.CREATED, http.client.SERVICE_UNAVAILABLE}, promised.statuses
    written = f"{refused} of {sum(promised.statuses.values()):,}"
    fences = f"{quiet['fence_ms'] / 1000:.2f} | {busy['fence_ms'] / 1000:.2f}"
    return f"| {megabytes:,} | {taken_s:.1f} s | {fences} | {written} | {lost} |"


def _backed_up(stand: Stand, practice: Practice) -> str:
    with tempfile.TemporaryDirectory(dir=stand.home) as folder:
        backup, backed_up_s = _command(stand, "practices", "backup", practice.id, "--to", folder)
        size = Path(backup["path"]).stat().st_size / 1e6
        restored, restored_s = _command(stand, "practices", "restore", backup["path"])
        _, compared_s = _command(stand, "practices", "diff", practice.id, restored["database"])
        _, swapped_s = _command(stand, "practices", "swap", practice.id, restored["database"])
        _command(stand, "practices", "drop-copy", practice.id, restored["database"])
    times = f"{backed_up_s:.1f} | {size:.1f} | {restored_s:.1f} | {compared_s:.1f} | {swapped_s:.1f}"
    return f"| {_megabytes(stand, practice):,} | {times} |"


class _Promised:
    """What writers were answered."""

    def __init__(self) -> None:
        self.statuses: Counter[int] = Counter()
        self.ids: set[str] = set()


@contextmanager
def _writing(stand: Stand, practice: Practice) -> Iterator[_Promised]:
    promised, over = _Promised(), threading.Event()

    def work() -> None:
        connection = http.client.HTTPConnection("127.0.0.1", stand.port, timeout=30)
        headers = {"Authorization": f"Bearer {practice.token}", "Content-Type": "application/json"}
        while not over.is_set():
            connection.request("POST", PATIENTS, PATIENT, headers)
            answer = connection.getresponse()
            content = answer.read()
            promised.statuses[answer.status] += 1
            if answer.status == http.client.CREATED:
                promised.ids.add(json.loads(content)["result"]["id"])
            else:
                time.sleep(0.05)
        connection.close()

    threads = [threading.Thread(target=work) for _ in range(WRITERS)]
    for thread in threads:
        thread.start()
    try:
        yield promised
    finally:
        over.set()
        for thread in threads:
            thread.join()


def _command(stand: Stand, *words: str) -> tuple[Any, float]:
    """What a command of the operator's prints, and how long it took."""
    began = time.perf_counter()
    done = subprocess.run(
        [GOWEBBO, *words, "--json"],
        env={"PATH": os.environ["PATH"], "GOWEBBO_HOME": str(stand.home / "data")},
        capture_output=True,
        check=False,
        text=True,
    )
    if done.returncode:
        raise SystemExit(f"gowebbo {' '.join(words)} failed: {done.stderr}")
    return json.loads(done.stdout), time.perf_counter() - began


if __name__ == "__main__":
    main()
