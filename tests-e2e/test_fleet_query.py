"""The operator asks every practice's database one question, by command: answers, refusals, and the record of it."""

from collections.abc import Iterator

import pytest
from e2e_api import Api, Practice
from e2e_stack import EmbeddedStack, StackFactory, psql


@pytest.fixture(scope="module")
def stack(new_stack: StackFactory) -> EmbeddedStack:
    return new_stack(EMBEDDED_SERVERS="2").start()


@pytest.fixture(scope="module")
def practices(stack: EmbeddedStack) -> Iterator[list[Practice]]:
    """Four, with 0 to 3 patients."""
    api = Api(stack.url)
    made = [Practice.join(api) for _ in range(4)]
    for count, practice in enumerate(made):
        for _ in range(count):
            practice.new_patient()
    yield made
    api.close()


def test_every_practice_answers(stack: EmbeddedStack, practices: list[Practice]) -> None:
    found = stack.command_json("fleet", "query", "select count(*) from patients")
    assert set(found) == {"rows", "answered", "failed", "deadline_s"}
    counts = {row["practice_id"]: row["count"] for row in found["rows"]}
    assert counts == {practice.id: count for count, practice in enumerate(practices)}
    assert sorted(found["answered"]) == sorted(counts)
    assert found["failed"] == []
    shown = stack.command("fleet", "query", "select count(*) as patients from patients", "--deadline", "10")
    assert (shown.returncode, shown.stderr) == (0, "")
    assert practices[3].id in shown.stdout


def test_what_writes_is_refused_and_nothing_changes(stack: EmbeddedStack, practices: list[Practice]) -> None:
    for statement in ("delete from patients", "select 1; drop table patients", "nonsense"):
        refused = stack.command("fleet", "query", statement, "--json")
        assert (refused.returncode, refused.stdout) == (1, "")
        assert "query" in refused.stderr
    assert [len(practice.patients()) for practice in practices] == [0, 1, 2, 3]


def test_who_does_not_answer_is_named(stack: EmbeddedStack, practices: list[Practice]) -> None:
    quiet = practices[0]
    with psql(stack.dsn(stack.central_database())) as cursor:
        cursor.execute("UPDATE tenant.shards SET fence = 'drifted' WHERE practice_id = %s", (quiet.id,))
    try:
        asked = stack.command("fleet", "query", "select 1", "--json")
        assert asked.returncode == 1
        assert f"{quiet.id} did not answer: It is fenced: drifted." in asked.stderr
        assert f'"failed": [\n    "{quiet.id}"\n  ]' in asked.stdout
    finally:
        with psql(stack.dsn(stack.central_database())) as cursor:
            cursor.execute("UPDATE tenant.shards SET fence = NULL WHERE practice_id = %s", (quiet.id,))
