"""Entries in order of their positions against a plain list."""

import random
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from daemon.tape import order as orders
from daemon.tape.order import Order
from daemon.tape.tape import Entry


def entry(seq: int) -> Entry:
    return Entry.of(seq, 1, ("a", ""), b"", "e")


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(1, 4)), max_size=80), st.randoms(use_true_random=False))
def test_it_is_a_list_from_which_anything_can_be_removed(steps: list[tuple[int, int]], dice: random.Random) -> None:
    orders._BLOCK, block = 4, orders._BLOCK  # type: ignore[misc]
    try:
        order, listed, seq = Order(), list[int](), 0
        for removed, added in steps:
            for _ in range(min(removed, len(listed))):
                at = dice.choice((0, dice.randrange(len(listed))))
                order.remove(listed.pop(at))
            for _ in range(added):
                seq += dice.choice((1, 1, 5))
                order.append(entry(seq))
                listed.append(seq)
            assert order.first == (listed[0] if listed else None)
            after = dice.randint(-1, seq + 1)
            upto = dice.randint(-1, seq + 1)
            assert [each.seq for each in order.between(after, upto)] == [
                each for each in listed if after < each <= upto
            ]
            assert order.count_beyond(after) == sum(each > after for each in listed)
            sizes = [len(each) for each in order._seqs]
            assert all(one + other > 2 for one, other in pairwise(sizes[:-1])), "blocks are not joined"
            assert all(0 < size <= 4 for size in sizes)
    finally:
        orders._BLOCK = block  # type: ignore[misc]


def test_however_many_have_come_and_gone_it_is_no_larger_than_what_it_holds() -> None:
    order = Order()
    for seq in range(1, 100_001):
        order.append(entry(seq))
        if seq > 1000 and seq % 100:
            order.remove(seq)
    assert len(list(order.between(0, 100_000))) == order.count_beyond(0) == 1000 + 990
    assert len(order._seqs) <= 4 * 1990 / orders._BLOCK + 2
