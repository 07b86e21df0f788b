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


@pytest.fixture(scope="session")
def shared_stand(_log_sink: object) -> Iterator[Stand]:
    stand = Stand()
    yield stand
    stand.close()


@pytest.fixture
def stand(shared_stand: Stand) -> Stand:
    shared_stand.reset()
    shared_stand.directory.forget(PRACTICE)  # the last test may have moved it
    return shared_stand


@pytest.fixture
def make_stand() -> Iterator[Callable[..., Stand]]:
    """Makes stands with settings of their own."""
    made = []

    def make(
        *,
        revoked_at_start: Sequence[str] = (),
        suspended_at_start: Sequence[str] = (),
        patient_processes: int = 1,
        **settings: Any,
    ) -> Stand:
        made.append(Stand(settings, [*revoked_at_start], [*suspended_at_start], patient_processes))
        return made[-1]

    yield make
    for stand in made:
        stand.close()
