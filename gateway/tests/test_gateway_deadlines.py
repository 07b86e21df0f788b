"""When calls must be over: one timer for all, and one way to be cancelled."""

import asyncio

import pytest

from gateway.deadlines import Deadlines

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend():
    return "asyncio"


async def outcome(deadlines: Deadlines, work, *, within=lambda _: None) -> str:
    try:
        with deadlines.begin() as deadline:
            within(deadline)
            await work
    except TimeoutError:
        return "abandoned" if deadline.is_abandoned else "late"
    return "done"


async def test_calls_end_at_their_time_and_those_in_time_are_left_alone():
    deadlines = Deadlines(0.05)
    late = [asyncio.create_task(outcome(deadlines, asyncio.Event().wait())) for _ in range(3)]
    assert await outcome(deadlines, asyncio.sleep(0)) == "done"
    assert await asyncio.gather(*late) == ["late"] * 3
    assert not deadlines._open


async def test_a_call_that_began_later_has_its_whole_time():
    deadlines = Deadlines(0.2)
    loop = asyncio.get_running_loop()
    first = asyncio.create_task(outcome(deadlines, asyncio.Event().wait()))
    await asyncio.sleep(0.1)
    began = loop.time()
    assert await outcome(deadlines, asyncio.Event().wait()) == "late"
    assert loop.time() - began >= 0.19
    assert await first == "late"


async def test_a_call_that_nobody_waits_for_ends_at_once_and_only_once():
    deadlines = Deadlines(60)

    def leave_twice(deadline):
        deadline.abandon()
        deadline.abandon()

    assert await outcome(deadlines, asyncio.Event().wait(), within=leave_twice) == "abandoned"
    assert asyncio.current_task().cancelling() == 0


async def test_a_postponed_call_has_a_time_of_its_own():
    deadlines = Deadlines(0.02)
    assert await outcome(deadlines, asyncio.sleep(0.1), within=lambda one: one.postpone(60)) == "done"
    assert await outcome(deadlines, asyncio.Event().wait(), within=lambda one: one.postpone(0.05)) == "late"


async def test_somebody_elses_cancellation_stays_one():
    deadlines = Deadlines(60)
    task = asyncio.create_task(outcome(deadlines, asyncio.Event().wait()))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert not deadlines._open
