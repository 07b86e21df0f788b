"""Practices to measure with: signed up and logged in through the API, filled with patients by SQL."""

import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass

import load
from measured import Measured
from stand import Stand

PASSWORD = "correct-horse-battery-staple"
PATIENT = json.dumps({"name": "Patient A", "age": 30, "mobile": "9876543210"}).encode()
PATIENTS = "/api/v1/patients"
LIST_20 = f"{PATIENTS}?limit=20"
LIST_1000 = f"{PATIENTS}?limit=1000"
PATIENTS_EACH = 21
"""So that a list of 20 has a next page."""
PRACTICE_BYTES = 10_000_000
"""On disk: PostgreSQL's own catalogues above all, and what the write-ahead log keeps meanwhile."""


@dataclass(frozen=True)
class Practice:
    """A practice whose owner has logged in."""

    id: str
    email: str
    token: str
    database: str

    def get(self, path: str) -> bytes:
        """A raw GET as its owner."""
        return load.get(path, self.token)

    def insert(self) -> bytes:
        """A raw POST of a new patient."""
        return load.send("POST", PATIENTS, PATIENT, self.token)

    def change(self, patient_id: str) -> bytes:
        """A raw PATCH."""
        return load.send("PATCH", f"{PATIENTS}/{patient_id}", b'{"age": 31}', self.token)


def make(stand: Stand, group: str, count: int, *, patients: int, start: int = 0) -> list[Practice]:
    """Signs up and logs in so many practices, and fills each. Raises SystemExit where that fails."""
    if shutil.disk_usage(stand.home).free < count * PRACTICE_BYTES:
        raise SystemExit(f"{count:,} practices need {count * PRACTICE_BYTES / 1e9:.0f} GB of free disk (TMPDIR)")
    numbers = range(start, start + count)
    made = sign_up(stand, group, numbers, clients=8)
    if made.failed:
        raise SystemExit(f"{made.failed} of {count} sign-ups failed")
    practices = _log_in(stand, [_email(group, number) for number in numbers])
    for practice in practices:
        fill(stand, practice, patients)
    return practices


def sign_up(stand: Stand, group: str, numbers: Sequence[int], *, clients: int) -> Measured:
    """Signs up practices with these numbers."""
    bodies = [{"name": f"Practice {n}", "email": _email(group, n), "password": PASSWORD} for n in numbers]
    requests = [load.send("POST", "/api/v1/practices/signup", json.dumps(body).encode()) for body in bodies]
    return load.run_all(stand.port, requests, clients=clients)


def log_in_request(email: str) -> bytes:
    """A raw log-in."""
    return load.send("POST", "/api/v1/practices/login", json.dumps({"email": email, "password": PASSWORD}).encode())


def fill(stand: Stand, practice: Practice, patients: int) -> None:
    """Adds so many active patients, as the service would have stored them."""
    with stand.sql(practice.database) as cursor:
        cursor.execute(
            "INSERT INTO patients (id, name, mobile, age)"
            " SELECT uuidv7(), 'Patient ' || n, '98765' || lpad(n::text, 8, '0'), n %% 100"
            " FROM generate_series(1, %s) n",
            (patients,),
        )
        cursor.execute("VACUUM (ANALYZE) patients")


def some_patients(stand: Stand, practice: Practice, count: int) -> list[str]:
    """Ids of so many of its active patients, at random."""
    with stand.sql(practice.database) as cursor:
        cursor.execute(
            "SELECT id::text FROM patients WHERE is_deleted = 0 ORDER BY hashtext(id::text) LIMIT %s", (count,)
        )
        return [patient_id for (patient_id,) in cursor.fetchall()]


def _email(group: str, number: int) -> str:
    return f"{group}-{number}@example.com"


def _log_in(stand: Stand, emails: Sequence[str]) -> list[Practice]:
    answers = load.ask_all(stand.port, [log_in_request(email) for email in emails], clients=8)
    with stand.sql("gowebbo") as cursor:
        cursor.execute("SELECT email, id::text, database_name FROM auth.practices")
        found = {email: (practice_id, database) for email, practice_id, database in cursor.fetchall()}
    return [
        Practice(found[email][0], email, json.loads(body)["token"], found[email][1])
        for email, (_, body) in zip(emails, answers, strict=True)
    ]
