"""Two hundred active practices on a server that allows a hundred connections: every call succeeds, no role strays."""

import itertools
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from e2e_api import PATIENTS, Api, Practice
from e2e_stack import EmbeddedStack, StackFactory, column, rows

PRACTICES = 200
MAX_CONNECTIONS = 100
CLIENTS = 16
ROUNDS = 3


@pytest.fixture(scope="module")
def small_stack(new_stack: StackFactory) -> EmbeddedStack:
    """A stack whose PostgreSQL has fewer connections than there are practices."""
    return new_stack(EMBEDDED_MAX_CONNECTIONS=str(MAX_CONNECTIONS)).start()


@pytest.fixture(scope="module")
def practices(small_stack: EmbeddedStack) -> Iterator[list[Practice]]:
    """Two hundred practices, logged in."""
    api = Api(small_stack.url)
    with ThreadPoolExecutor(CLIENTS) as pool:
        yield list(pool.map(lambda _: Practice.join(api), range(PRACTICES)))
    api.close()


def test_all_practices_work_in_rotation_without_a_failure(
    small_stack: EmbeddedStack, practices: list[Practice]
) -> None:
    [[allowed]] = rows(small_stack.dsn(), "SHOW max_connections")
    assert int(allowed) == MAX_CONNECTIONS

    def visit(turn: tuple[int, Practice]) -> tuple[int, int]:
        number, joined = turn
        return joined.add(name=f"round {number}").status_code, joined.get(PATIENTS).status_code

    turns = list(itertools.product(range(ROUNDS), practices))
    with ThreadPoolExecutor(CLIENTS) as pool:
        seen = list(pool.map(visit, turns))
    assert [one for one in seen if one != (201, 200)] == []
    for joined in practices[:: PRACTICES // 10]:
        assert sorted(one["name"] for one in joined.patients()) == [f"round {number}" for number in range(ROUNDS)]


def test_no_role_of_any_practice_may_enter_another_database(
    small_stack: EmbeddedStack, practices: list[Practice]
) -> None:
    """0 of all pairs. Template1, postgres and the central database are among the databases."""
    strays = rows(
        small_stack.dsn(),
        "SELECT r.rolname, d.datname FROM pg_roles r CROSS JOIN pg_database d"
        " WHERE starts_with(r.rolname, 'shard_') AND r.rolcanlogin AND r.rolname <> d.datname"
        " AND d.datallowconn AND has_database_privilege(r.oid, d.oid, 'CONNECT')",
    )
    assert strays == []
    own = column(
        small_stack.dsn(),
        "SELECT r.rolname FROM pg_roles r JOIN pg_database d ON d.datname = r.rolname"
        " WHERE r.rolcanlogin AND NOT r.rolsuper AND d.datallowconn"
        " AND has_database_privilege(r.oid, d.oid, 'CONNECT')",
    )
    assert len(own) == len(practices)


def test_the_stack_stops_in_time_with_all_of_them(small_stack: EmbeddedStack, practices: list[Practice]) -> None:
    """15 s, exit 0; each practice brings a database that PostgreSQL has to write out."""
    assert len(practices) == PRACTICES
    assert small_stack.stop() == 0
