"""A practice is closed by the operator: refused at once, undone in time, exported, then gone, with a record of it."""

import json
import zipfile
from collections.abc import Iterator
from pathlib import Path

import jwt
import pytest
from e2e_api import SIGNUP, Api, Practice
from e2e_stack import EmbeddedStack, StackFactory, column, eventually
from jwt.algorithms import OKPAlgorithm

GRACE_S = 8
NOTICED_WITHIN_S = 5


@pytest.fixture(scope="module")
def stack(new_stack: StackFactory) -> EmbeddedStack:
    return new_stack(CLOSE_GRACE=str(GRACE_S)).start()


@pytest.fixture(scope="module")
def api(stack: EmbeddedStack) -> Iterator[Api]:
    client = Api(stack.url)
    yield client
    client.close()


def test_a_practice_ends_without_a_trace_but_for_the_record(stack: EmbeddedStack, api: Api, tmp_path: Path) -> None:
    practice, neighbour = Practice.join(api), Practice.join(api)
    practice.new_patient(name="Theirs")
    neighbour.new_patient()
    backup = stack.command_json("practices", "backup", practice.id, "--to", str(tmp_path))
    exported = stack.command_json("practices", "export", practice.id, "--to", str(tmp_path))
    assert exported["rows"] == 1
    with zipfile.ZipFile(exported["path"]) as archive:
        assert [one["name"] for one in json.loads(archive.read("patients.json"))] == ["Theirs"]
        assert "practice.signed-up" in {one["action"] for one in json.loads(archive.read("audit.json"))}

    begun = stack.command_json("practices", "close", practice.id)
    assert (set(begun), begun["status"]) == ({"practice", "status", "until"}, "closing")
    eventually(
        lambda: practice.get("/api/v1/patients").status_code == 403, "its calls are refused", timeout_s=NOTICED_WITHIN_S
    )
    undone = stack.command_json("practices", "undo-close", practice.id)
    assert undone == {"practice": practice.id, "status": "active", "until": None}
    eventually(lambda: practice.get("/api/v1/patients").status_code == 200, "it works", timeout_s=NOTICED_WITHIN_S)

    stack.command_json("practices", "close", practice.id)
    database = next(row["database"] for row in stack.command_json("practices", "list") if row["id"] == practice.id)
    record = eventually(
        lambda: (
            (found := stack.command("practices", "deletion-record", practice.id, "--json")).returncode == 0
            and json.loads(found.stdout)["record"]
        ),
        "the record of its deletion",
        timeout_s=GRACE_S + 60,
        poll_s=1,
    )
    keys = {key["kid"]: key for key in api.get("/.well-known/jwks.json").json()["keys"]}
    kid = jwt.get_unverified_header(record)["kid"]
    facts = jwt.decode(record, OKPAlgorithm.from_jwk(keys[kid]), algorithms=["EdDSA"])
    assert (facts["practice"], facts["database"], facts["backup_files"]) == (practice.id, database, 1)
    assert column(stack.dsn(), "SELECT datname FROM pg_database WHERE datname = %s", database) == []
    assert column(stack.dsn(), "SELECT rolname FROM pg_roles WHERE rolname = %s", database) == []
    assert not Path(backup["path"]).exists()
    assert practice.get("/api/v1/patients").status_code == 401
    assert api.log_in(practice.email).status_code == 401
    body = {"name": "Anew", "email": practice.email, "password": "securepassword"}
    assert api.post(SIGNUP, json=body).status_code == 201
    assert len(neighbour.patients()) == 1
    listed = {row["id"]: row["status"] for row in stack.command_json("practices", "list")}
    assert listed.get(practice.id, "closed") == "closed"
    assert stack.command_json("practices", "verify-isolation")["ok"] is True
