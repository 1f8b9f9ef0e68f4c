"""Trades once each: repeats, history, holes, ids that begin anew; and two connections that deliver as they like."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Raw

from connectors.base import Event
from connectors.push.once import ANEW_MS, SAME_ORDER_MOST, Once
from protocol.fields import TradeFields

T0 = 1_765_211_445_000


def trade(
    order: int | None,
    *,
    id_: str | None = None,
    at_ms: int = T0,
    past: bool = False,
    data: bytes = b"{}",
    of: str = "A",
) -> Event:
    fields = TradeFields(Raw(b"1"), "buy", str(order) if id_ is None else id_)
    return Event("trades", of, data, at_ms, "5", at_ms, fields=fields, order=order, past=past)


def admitted(once: Once, *events: Event) -> list[int | None]:
    passed, _ = once.admit(events)
    return [event.order for event in passed]


def test_what_was_published_is_dropped_and_counted() -> None:
    once = Once(consecutive=False)
    assert admitted(once, trade(3), trade(7), trade(7), trade(3), trade(9)) == [3, 7, 9]
    assert admitted(once, trade(7), trade(9), trade(12)) == [12]
    assert once.repeats == 4


def test_a_repetition_is_known_by_its_id_whatever_its_bytes() -> None:
    once = Once(consecutive=True)
    assert admitted(once, trade(3, data=b'{"live":1}')) == [3]
    assert admitted(once, trade(3, data=b'{"history":1}', past=True)) == []


def test_trades_of_one_order_are_told_apart_by_their_ids_or_else_by_their_bytes() -> None:
    once = Once(consecutive=False)
    assert admitted(once, trade(3, id_="a"), trade(3, id_="b"), trade(3, id_="a"), trade(3, id_="c")) == [3, 3, 3]
    assert (
        admitted(once, trade(4, id_="", data=b"1"), trade(4, id_="", data=b"2"), trade(4, id_="", data=b"1")) == [4] * 2
    )


def test_of_one_order_the_newest_are_remembered_and_no_more() -> None:
    once = Once(consecutive=False)
    many = [trade(3, id_=str(n)) for n in range(SAME_ORDER_MOST + 1)]
    assert len(admitted(once, *many)) == len(many)
    assert admitted(once, *many[1:]) == []
    assert admitted(once, many[0]) == [3], "the oldest is forgotten"


def test_topics_and_channels_are_apart_and_other_events_pass() -> None:
    once = Once(consecutive=True)
    ticker = Event("ticker", "A", b"{}", T0, "5", order=3)
    other = msgspec.structs.replace(trade(3), channel="more")
    events = [trade(3), trade(3, of="B"), other, ticker, ticker]
    assert once.admit(events) == (events, [])
    only = [ticker, ticker]
    assert once.admit(only)[0] is only


def test_without_an_order_nothing_can_be_compared_so_live_trades_pass_and_history_does_not() -> None:
    once = Once(consecutive=False)
    assert admitted(once, trade(None), trade(None), trade(None, past=True)) == [None, None]


def test_history_is_no_news_while_nothing_was_published() -> None:
    once = Once(consecutive=True)
    history = [trade(n, past=True) for n in (1, 2, 3)]
    assert once.admit(history) == ([], [])
    assert once.admit(history) == ([], [])
    assert admitted(once, trade(3), trade(4)) == [4], "the 3rd was before we came"


def test_history_fills_the_hole_of_a_break() -> None:
    once = Once(consecutive=True)
    admitted(once, trade(1), trade(2))
    passed, notes = once.admit([trade(n, past=True) for n in (1, 2, 3, 4)])
    assert [event.order for event in passed] == [3, 4]
    assert notes == []
    assert admitted(once, trade(5)) == [5]
    assert once.missing == 0


def test_a_hole_is_noted_of_its_topic_with_how_many_are_missing() -> None:
    once = Once(consecutive=True)
    _, notes = once.admit([trade(1), trade(3), trade(10, of="B"), trade(7)])
    assert [(note.instrument, note.cause, note.count, note.partial, note.reason) for note in notes] == [
        ("A", "gap", 1, True, "1 trade is missing between the ids 1 and 3"),
        ("A", "gap", 3, True, "3 trades are missing between the ids 3 and 7"),
    ]
    assert once.missing == 4
    assert Once(consecutive=False).admit([trade(1), trade(3)])[1] == []


def test_a_hole_between_history_and_the_first_live_trade_is_one() -> None:
    once = Once(consecutive=True)
    passed, notes = once.admit([trade(1, past=True), trade(3)])
    assert [event.order for event in passed] == [3]
    assert [note.count for note in notes] == [1]


def test_ids_that_begin_anew_are_known_by_the_time_and_are_no_hole() -> None:
    once = Once(consecutive=True)
    admitted(once, trade(1_000, at_ms=T0))
    assert admitted(once, trade(1, at_ms=T0 + ANEW_MS)) == [], "it may be a repetition"
    passed, notes = once.admit([trade(2, at_ms=T0 + ANEW_MS + 1), trade(3, at_ms=T0 + ANEW_MS + 1)])
    assert [event.order for event in passed] == [2, 3]
    assert notes == []


def test_a_late_trade_does_not_set_the_time_back() -> None:
    once = Once(consecutive=False)
    admitted(once, trade(5, at_ms=T0 + 60_000), trade(6, at_ms=T0))
    assert admitted(once, trade(4, at_ms=T0 + 60_000)) == []


@st.composite
def two_connections(draw: st.DrawFn) -> tuple[list[Event], list[tuple[int, list[Event]]]]:
    """The venue's trades; and what two connections say: each begins somewhere with history, goes on, and repeats."""
    orders = draw(st.lists(st.integers(0, 3), min_size=1, max_size=40))
    at, made = 0, []
    for number, step in enumerate(orders):
        at += step
        made.append(trade(at, id_=str(number), at_ms=T0 + number))
    says: list[tuple[int, list[Event]]] = []
    for connection in (0, 1):
        begin = draw(st.integers(0, len(made)))
        history = draw(st.integers(0, begin))
        past = [msgspec.structs.replace(one, past=True, data=b"[]") for one in made[history:begin]]
        says.append((connection, past))
        rest = made[begin:]
        while rest:
            size = draw(st.integers(1, 10))
            repeated = draw(st.booleans())
            says += [(connection, rest[:size])] * (2 if repeated else 1)
            rest = rest[size:]
    order = draw(st.permutations(range(len(says))))
    turns = [says[index][0] for index in order]
    queues = {c: [batch for one, batch in says if one == c] for c in (0, 1)}
    return made, [(turn, queues[turn].pop(0)) for turn in turns]


@given(two_connections())
def test_whatever_two_connections_say_and_repeat_each_trade_comes_once_and_in_order(
    played: tuple[list[Event], list[tuple[int, list[Event]]]],
) -> None:
    made, says = played
    once = Once(consecutive=False)
    passed: list[Event] = []
    began: int | None = None
    for _, batch in says:
        for event in batch:
            if began is None and not event.past:
                began = int(str(event.fields.trade_id))  # type: ignore[union-attr] # all of them are trades
        admitted_now, notes = once.admit(batch)
        passed += admitted_now
        assert notes == []
    ids = [int(event.fields.trade_id) for event in passed]  # type: ignore[union-attr]
    assert len(set(ids)) == len(ids)
    assert [event.order for event in passed] == sorted(event.order or 0 for event in passed)
    offered = sum(len(batch) for _, batch in says)
    assert once.repeats == offered - len(passed)
    if began is not None and ids:
        assert not passed[0].past, "the first of all is live"
        # In whichever order the two spoke, the newest trade is not lost.
        assert len(made) - 1 in ids


@pytest.mark.parametrize("consecutive", [True, False])
@given(st.lists(st.tuples(st.integers(0, 30), st.booleans()), max_size=40))
def test_what_is_missing_is_what_was_left_out(consecutive: bool, trades: list[tuple[int, bool]]) -> None:
    once = Once(consecutive=consecutive)
    passed, notes = once.admit([trade(order, past=past) for order, past in trades])
    orders = [event.order or 0 for event in passed]
    assert orders == sorted(set(orders))
    assert once.missing == sum(note.count for note in notes)
    if not consecutive:
        assert once.missing == 0
    elif orders:
        # What was missing of the history before the first published trade counts too.
        assert once.missing >= orders[-1] - orders[0] + 1 - len(orders)
