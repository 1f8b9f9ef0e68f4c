"""Collections are short however many objects there are, and what is garbage goes."""

import gc
import weakref

import pytest
import trio
import trio.testing

from daemon.host.garbage import FIRST_THAW, LAST_THAW, LOOK_S, THRESHOLDS, Garbage


class Ring:
    """Two of these can be garbage that no reference count frees."""

    other: "Ring"


def ring() -> "weakref.ref[Ring]":
    one, other = Ring(), Ring()
    one.other, other.other = other, one
    return weakref.ref(one)


@pytest.fixture
async def garbage(nursery: trio.Nursery) -> Garbage:
    garbage = Garbage()
    await nursery.start(garbage.run)
    return garbage


async def test_what_stays_is_looked_at_once_and_never_again(garbage: Garbage) -> None:
    sizes: list[int] = []

    def looked_at(phase: str, info: dict[str, int]) -> None:
        if phase == "start" and info["generation"] == 2:
            sizes.append(len(gc.get_objects()))  # those that are not frozen

    gc.callbacks.append(looked_at)
    try:
        kept: list[list[int]] = [[number] for number in range(200_000)]
    finally:
        gc.callbacks.remove(looked_at)
    assert len(kept) == 200_000
    assert len(sizes) > 10
    assert max(sizes) < 3 * THRESHOLDS[0] * (THRESHOLDS[1] + 1) * (THRESHOLDS[2] + 1)


async def test_a_ring_that_is_garbage_soon_is_found_soon(garbage: Garbage) -> None:
    lost = ring()
    kept = [[number] for number in range(20_000)]
    assert lost() is None
    assert len(kept) == 20_000


async def test_a_ring_that_was_frozen_is_found_by_a_thaw_and_not_before(garbage: Garbage) -> None:
    one, other = Ring(), Ring()
    one.other, other.other = other, one
    gc.collect()
    lost = weakref.ref(one)
    del one, other
    gc.collect()
    assert lost() is not None
    assert garbage.thaw() >= 2
    assert lost() is None


async def test_thaws_grow_seldom_where_they_find_nothing(
    garbage: Garbage, autojump_clock: trio.testing.MockClock
) -> None:
    for _ in range(20):
        before = garbage.thaw_at
        garbage.frozen = garbage.thaw_at
        await trio.sleep(LOOK_S + 1)
        assert garbage.thaw_at == min(2 * before, LAST_THAW)
        assert garbage.frozen < FIRST_THAW
    garbage.frozen = 100
    kept = [ring() for _ in range(100)]
    garbage.thaw()
    assert garbage.thaw_at == FIRST_THAW
    assert not any(lost() for lost in kept)


async def test_the_collector_is_as_it_was_afterwards() -> None:
    before, callbacks = gc.get_threshold(), list(gc.callbacks)
    async with trio.open_nursery() as nursery:
        await nursery.start(Garbage().run)
        assert gc.get_threshold() == THRESHOLDS
        assert gc.get_freeze_count() > 0
        nursery.cancel_scope.cancel()
    assert (gc.get_threshold(), gc.callbacks, gc.get_freeze_count()) == (before, callbacks, 0)
