"""The budget's arithmetic by itself, in the moments that calls on a real server seldom meet."""

import asyncio

import pytest

from patient_service.server_slots import ServerSlots

pytestmark = pytest.mark.anyio


class IdleConnection:
    """Gives its slot back when it is closed, as the pool arranges it."""

    def __init__(self, slots: ServerSlots) -> None:
        self._slots = slots
        slots.rest(self, now=0.0)

    def close(self) -> None:
        self._slots.wake(self)
        self._slots.free()


async def waiting_for(slots: ServerSlots) -> "asyncio.Task[None]":
    task = asyncio.create_task(slots.take())
    await asyncio.sleep(0)
    return task


async def test_a_slot_that_is_freed_in_the_moment_its_waiter_gives_up_goes_to_the_next():
    """The first to wait is passed over already when it runs again."""
    slots = ServerSlots(1)
    await slots.take()
    first, second = await waiting_for(slots), await waiting_for(slots)
    first.cancel()
    slots.free()
    with pytest.raises(asyncio.CancelledError):
        await first
    await second
    assert (slots.used, slots.contested) == (1, False)


async def test_a_slot_that_was_given_to_one_who_gives_up_goes_to_the_next():
    slots = ServerSlots(1)
    await slots.take()
    first, second = await waiting_for(slots), await waiting_for(slots)
    slots.free()
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    await second
    assert (slots.used, slots.contested) == (1, False)


async def test_one_who_gives_up_waiting_leaves_nothing():
    slots = ServerSlots(1)
    await slots.take()
    waiter = await waiting_for(slots)
    waiter.cancel()
    await asyncio.wait({waiter})
    assert not slots.contested
    slots.free()
    assert slots.used == 0


async def test_a_budget_that_shrank_is_reached_by_closing_what_is_idle():
    """Else whoever has no connection waits for those who need none now."""
    slots = ServerSlots(10)
    for _ in range(10):
        await slots.take()
        IdleConnection(slots)
    slots.budget = 3
    async with asyncio.timeout(1):
        await slots.take()
    assert (slots.used, slots.idle, slots.evicted) == (3, 2, 8)
