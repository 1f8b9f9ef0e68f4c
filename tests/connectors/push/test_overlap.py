"""Two connections' events, sifted into one sequence, whatever the lags and the moment of the switch."""

from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st

from connectors.base import Event
from connectors.push.overlap import HELD_MOST, HOLD_S, Overlap, Topic

NOW = 1_765_211_445_122


def at(key: int | None, data: str = "", channel: str = "price") -> Event:
    return Event(channel, "BTC/USDT", f"{key} {data}".encode(), NOW, "1", key, order=key)


def begun(*passed: Event) -> Overlap:
    """An overlap that begins when the old connection has passed on these."""
    return Overlap({(event.channel, event.instrument): event for event in passed})


# ---- two copies of one sequence -------------------------------------------------------------------------------------

steps = st.lists(st.integers(0, 2), min_size=1, max_size=25)
"""How much later each event is than the one before: often not at all."""


@st.composite
def sequences(draw: st.DrawFn) -> list[Event]:
    """Two topics in one sequence, each with keys that never fall and data that tell equal keys apart.

    The first two events are one of each topic.
    """
    keys = {"one": 0, "two": 0}
    events = [at(0, "first", "one"), at(0, "first", "two")]
    for number, step in enumerate(draw(steps)):
        channel = draw(st.sampled_from(["one", "two"]))
        keys[channel] += step
        events.append(at(keys[channel], str(number), channel))
    return events


class Switch:
    """One switch from an old connection, which delivers all, to a new one, which begins somewhere later.

    Which of the two delivers next is drawn, so that either may be behind by any amount.
    """

    def __init__(self, data: st.DataObject, sequence: list[Event]) -> None:
        self.data = data
        self.sequence = sequence
        before = self.data.draw(st.integers(2, len(sequence)), "delivered before the overlap")
        begins = self.data.draw(st.integers(0, len(sequence)), "the new one's place at its subscription")
        self.out = sequence[:before]
        self.old = sequence[before:]
        # As a venue does, it sends the present state of each topic first, and then what follows.
        present: dict[str, Event] = {event.channel: event for event in sequence[:begins]}
        self.new = [*present.values(), *sequence[begins:]]
        self.overlap = begun(*self.out)

    def both_for_a_while(self) -> None:
        while self.old and self.new:
            if self.data.draw(st.booleans()):
                return
            if self.data.draw(st.booleans()):
                self.old_delivers()
            else:
                self.new_delivers()

    def old_delivers(self) -> None:
        size = self.data.draw(st.integers(1, 4))
        batch, self.old = self.old[:size], self.old[size:]
        self.out += self.overlap.from_old(batch)

    def new_delivers(self) -> None:
        size = self.data.draw(st.integers(1, 4))
        batch, self.new = self.new[:size], self.new[size:]
        self.out += self.overlap.from_new(batch, 0)

    def topics(self) -> set[Topic]:
        return {(event.channel, event.instrument) for event in self.sequence}

    def of_each_topic(self, events: Sequence[Event]) -> dict[str, list[bytes]]:
        said: dict[str, list[bytes]] = {}
        for event in events:
            said.setdefault(event.channel, []).append(event.data)
        return said

    def check(self) -> None:
        assert self.of_each_topic(self.out) == self.of_each_topic(self.sequence)
        assert self.overlap.is_over


@given(sequences(), st.data())
def test_the_new_one_goes_on_alone_and_nothing_is_lost_or_doubled(sequence: list[Event], data: st.DataObject) -> None:
    switch = Switch(data, sequence)
    switch.both_for_a_while()
    # The overlap covers the switch: on each topic the two have met.
    while not switch.topics() <= switch.overlap.met:
        old_is_next = bool(switch.old) and (not switch.new or data.draw(st.booleans()))
        if old_is_next:
            switch.old_delivers()
        else:
            switch.new_delivers()
    switch.both_for_a_while()
    switch.out += switch.overlap.end(new_is_gone=False)
    while switch.new:
        switch.new_delivers()
    switch.check()


@given(sequences(), st.data())
def test_the_new_one_fails_and_nothing_is_lost_or_doubled(sequence: list[Event], data: st.DataObject) -> None:
    switch = Switch(data, sequence)
    switch.both_for_a_while()
    switch.out += switch.overlap.end(new_is_gone=True)
    # At once the next one is tried, and fails too.
    switch.overlap = Overlap(switch.overlap.latest, switch.overlap)
    begins = data.draw(st.integers(0, len(sequence)))
    present = {event.channel: event for event in sequence[:begins]}
    switch.new = [*present.values(), *sequence[begins:]]
    switch.both_for_a_while()
    switch.out += switch.overlap.end(new_is_gone=True)
    while switch.old:
        switch.old_delivers()
    switch.check()


anything = st.lists(
    st.builds(at, st.none() | st.integers(0, 5), st.sampled_from("ab"), st.sampled_from(["one", "two"])), max_size=8
)


@given(st.lists(st.tuples(st.booleans(), anything, st.integers(0, 3)), max_size=8))
def test_whatever_comes_no_topic_goes_back_and_nothing_comes_twice(
    batches: list[tuple[bool, list[Event], int]],
) -> None:
    overlap = begun()
    out: list[Event] = []
    given_, now_s = 0, 0
    for from_new, events, later_s in batches:
        now_s += later_s
        given_ += len(events)
        out += overlap.overdue(now_s)
        out += overlap.from_new(events, now_s) if from_new else overlap.from_old(events)
    out += overlap.end(new_is_gone=False)
    for channel in ("one", "two"):
        said = [event for event in out if event.channel == channel and event.exchange_ms is not None]
        keys = [event.exchange_ms for event in said if event.exchange_ms is not None]
        assert keys == sorted(keys)
        assert len({event.data for event in said}) == len(said)
    assert len(out) + overlap.dropped == given_


# ---- by example -----------------------------------------------------------------------------------------------------


def test_the_first_to_deliver_an_event_is_the_one_that_counts() -> None:
    overlap = begun(at(1))
    assert overlap.from_new([at(1)], 0) == []
    assert overlap.from_new([at(2)], 0) == [at(2)]
    assert overlap.from_old([at(2), at(3)]) == [at(3)]
    assert overlap.from_new([at(3), at(4)], 0) == [at(4)]
    assert overlap.dropped == 3


def test_equal_times_are_told_apart_by_their_bytes() -> None:
    overlap = begun(at(1))
    overlap.from_new([at(1)], 0)
    assert overlap.from_old([at(2, "a"), at(2, "b")]) == [at(2, "a"), at(2, "b")]
    assert overlap.from_new([at(2, "a"), at(2, "b"), at(2, "c")], 0) == [at(2, "c")]
    assert overlap.from_old([at(2, "c"), at(1, "late")]) == []


def test_of_equal_times_before_the_overlap_the_order_tells() -> None:
    overlap = begun(at(1, "first"), at(1, "last"))
    assert overlap.from_new([at(1, "first")], 0) == []
    assert overlap.met == set()
    assert overlap.from_new([at(1, "last"), at(1, "next")], 0) == [at(1, "next")]


def test_a_new_connection_that_is_ahead_waits_for_the_old_one() -> None:
    overlap = begun(at(1))
    assert overlap.from_new([at(4), at(5)], 0) == []
    assert overlap.met == set()
    assert overlap.from_old([at(2), at(3)]) == [at(2), at(3)]
    assert overlap.from_old([at(4)]) == [at(4), at(5)]
    assert overlap.met == {("price", "BTC/USDT")}
    assert overlap.from_new([at(6)], 0) == [at(6)]


def test_but_not_for_long() -> None:
    overlap = begun(at(1))
    assert overlap.from_new([at(4), at(5)], 100.0) == []
    assert overlap.overdue(100.0 + HOLD_S / 2) == []
    assert overlap.overdue(100.0 + HOLD_S) == [at(4), at(5)]
    assert overlap.from_old([at(2), at(5), at(6)]) == [at(6)]


def test_nor_with_many() -> None:
    overlap = begun(at(1))
    events = [at(key) for key in range(10, 10 + HELD_MOST)]
    assert overlap.from_new(events[:-1], 0) == []
    assert overlap.from_new(events[-1:], 0) == events


def test_nor_for_a_dead_one() -> None:
    overlap = begun(at(1))
    overlap.from_new([at(4), at(5)], 0)
    assert overlap.end(new_is_gone=False) == [at(4), at(5)]
    assert overlap.is_over


def test_what_waits_of_a_new_one_that_failed_comes_from_the_old_one() -> None:
    overlap = begun(at(1))
    overlap.from_new([at(4)], 0)
    assert overlap.end(new_is_gone=True) == []
    assert overlap.is_over
    assert overlap.from_old([at(2), at(3), at(4)]) == [at(2), at(3), at(4)]


def test_a_topic_that_the_old_one_never_had_needs_no_wait() -> None:
    overlap = begun()
    assert overlap.from_new([at(7)], 0) == [at(7)]
    assert overlap.met == {("price", "BTC/USDT")}


def test_after_the_end_of_one_the_other_is_sifted_until_it_has_caught_up() -> None:
    overlap = begun(at(1))
    overlap.from_new([at(1)], 0)
    overlap.from_old([at(2), at(3)])
    overlap.end(new_is_gone=False)
    assert not overlap.is_over
    assert overlap.from_new([at(2)], 0) == []
    assert not overlap.is_over
    assert overlap.from_new([at(3)], 0) == []
    assert overlap.is_over


def test_the_old_one_is_behind_for_as_long_as_it_takes_however_many_new_ones_fail() -> None:
    first = begun(at(1))
    first.from_new([at(1), at(2), at(3)], 0)
    first.end(new_is_gone=True)
    second = Overlap(first.latest, first)
    second.end(new_is_gone=True)
    assert not second.is_over
    assert second.from_old([at(2), at(3)]) == []
    assert second.is_over


def test_without_a_key_the_old_connection_alone_speaks_until_it_is_gone() -> None:
    overlap = begun(at(None, "1"))
    assert overlap.from_new([at(None, "1")], 0) == []
    assert overlap.met == {("price", "BTC/USDT")}
    assert overlap.from_old([at(None, "2"), at(None, "1")]) == [at(None, "2"), at(None, "1")]
    overlap.end(new_is_gone=False)
    assert overlap.from_new([at(None, "2")], 0) == [at(None, "2")]
    assert overlap.is_over
