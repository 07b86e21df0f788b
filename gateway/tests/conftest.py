"""One stand for a test session; a test that breaks things gets one of its own."""

from collections.abc import Callable, Iterator, MutableMapping, Sequence
from typing import Any

import pytest
import structlog
from gateway_stand import PRACTICE, Stand


@pytest.fixture(scope="session")
def _log_sink() -> structlog.testing.LogCapture:
    """The stand logs from a thread of its own, also between tests: so into a list, not to a captured stdout."""
    sink = structlog.testing.LogCapture()
    structlog.configure(processors=[structlog.contextvars.merge_contextvars, sink])
    return sink


@pytest.fixture(autouse=True)
def log_entries(_log_sink: structlog.testing.LogCapture) -> list[MutableMapping[str, Any]]:
    """What was logged during this test."""
    _log_sink.entries.clear()
    return _log_sink.entries


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "both_ways: once with callers who are new, once with such as have called before")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "warms_up" in metafunc.fixturenames:
        both = metafunc.definition.get_closest_marker("both_ways")
        ways = [pytest.param(True, id="short"), pytest.param(False, id="long")] if both else [False]
        metafunc.parametrize("warms_up", ways)


@pytest.fixture(scope="session")
def shared_stands(_log_sink: object) -> Iterator[dict[bool, Stand]]:
    stands: dict[bool, Stand] = {}
    yield stands
    for stand in stands.values():
        stand.close()


@pytest.fixture
def stand(shared_stands: dict[bool, Stand], warms_up: bool) -> Stand:  # noqa: FBT001 - a fixture
    if warms_up not in shared_stands:
        shared_stands[warms_up] = Stand(warms_up=warms_up)
    stand = shared_stands[warms_up]
    stand.reset()
    stand.directory.forget(PRACTICE)  # the last test may have moved it
    return stand


@pytest.fixture
def make_stand(warms_up: bool) -> Iterator[Callable[..., Stand]]:  # noqa: FBT001 - a fixture
    """Makes stands with settings of their own."""
    made = []

    def make(
        *,
        revoked_at_start: Sequence[str] = (),
        suspended_at_start: Sequence[str] = (),
        patient_processes: int = 1,
        **settings: Any,
    ) -> Stand:
        made.append(Stand(settings, [*revoked_at_start], [*suspended_at_start], patient_processes, warms_up))
        return made[-1]

    yield make
    for stand in made:
        stand.close()
