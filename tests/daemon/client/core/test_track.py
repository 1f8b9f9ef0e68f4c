"""`daemon.client.core.track`: against a made-up tape, cut anywhere, each message once and nothing missing unsaid."""

from hypothesis import given
from hypothesis import strategies as st
from msgspec import UNSET, Raw

from daemon.client.core.events import Gap, Lost
from daemon.client.core.track import Track
from protocol.messages import DepthSnapshot, DepthUpdate, Lagged, Position, PriceUpdate, Subscribed

STAMP = "2025-12-08T16:30:45.123Z"
A, B = "BTC/USDT", "ETH/USDT"


def _price(seq: int, prev_seq: int, instrument: str = A) -> PriceUpdate:
    return PriceUpdate(
        connector_id="x",
        exchange="okx",
        instrument=instrument,
        price=Raw(b"1"),
        timestamp=STAMP,
        seq=seq,
        prev_seq=prev_seq,
        received_ms=1,
        data=Raw(b"{}"),
    )


def _subscribed(seq: int, *, epoch: str = "e", recovered: bool | None = None) -> Subscribed:
    return Subscribed(
        timestamp=STAMP,
        channels=("x",),
        epoch=epoch,
        seq=seq,
        recovered=UNSET if recovered is None else {"x": recovered},
    )


def _track(seq: int = 10, *, snapshot: bool = True, sampled: bool = False) -> Track:
    track = Track(snapshot=snapshot)
    assert track.answered(_subscribed(seq), sampled=sampled) is None
    return track


@given(
    st.lists(st.sampled_from([A, B]), max_size=30),
    st.lists(st.integers(0, 30), max_size=6),
    st.integers(0, 10),
    st.booleans(),
)
def test_every_message_since_the_beginning_is_had_once_in_order_wherever_connections_are_cut(
    topics: list[str], cuts: list[int], begun_at: int, snapshot: bool
) -> None:
    """The tape has one message per topic named; connection `n` ends once the client has seen `cuts[n]` of them."""
    tape: list[PriceUpdate] = []
    newest = dict.fromkeys((A, B), 0)
    for seq, topic in enumerate(topics, 1):
        tape.append(_price(seq, newest[topic], topic))
        newest[topic] = seq
    track = Track(snapshot=snapshot)
    had: list[int] = []
    head = min(begun_at, len(tape))
    first = None
    for cut in [*sorted(cuts), len(tape)]:
        since = track.position("x")
        if since is None:
            first = head if first is None or not had else first
            assert track.answered(_subscribed(head)) is None
            shown = {message.instrument: message for message in tape[:head]}
            coming = sorted(shown.values(), key=lambda message: message.seq) if snapshot else []
        else:
            assert track.answered(_subscribed(head, recovered=True)) is None
            coming = [message for message in tape[:head] if message.seq > since.seq]
        coming += tape[head : max(head, cut)]
        stop = len(coming) if cut == len(tape) else cut % (len(coming) + 1)
        for message in coming[:stop]:
            verdict = track.take(message)
            assert not isinstance(verdict, Gap)
            if verdict:
                had.append(message.seq)
        if stop == len(coming):
            track.settled()
        head = max(head, min(cut, len(tape)))
    assert had == sorted(set(had))
    assert first is not None
    wanted = {message.seq for message in tape if message.seq > min(first, *had, len(tape))} if had else set()
    assert {seq for seq in wanted if seq > first} <= set(had)


def test_a_gap_is_told_first_and_the_position_stays_before_it() -> None:
    track = _track()
    assert track.take(_price(11, 4)) is True
    assert track.take(_price(20, 15)) == Gap("x", A, 11, 20)
    assert track.position("x") == Position("e", 11)
    assert track.take(_price(20, 15)) is True
    assert track.position("x") == Position("e", 20)


def test_lagged_announces_and_an_interval_explains_what_is_missing() -> None:
    track = _track()
    track.lagged(Lagged(timestamp=STAMP, missed=3, from_seq=11, to_seq=18))
    assert track.take(_price(18, 17)) is True
    assert track.take(_price(30, 25)) == Gap("x", A, 18, 30)
    sampled = _track(sampled=True)
    assert [sampled.take(_price(11, 4)), sampled.take(_price(30, 25))] == [True, True]


def test_lagged_announces_nothing_of_channels_that_lost_nothing() -> None:
    track = _track()
    track.lagged(Lagged(timestamp=STAMP, missed=3, from_seq=11, to_seq=18, by_channel={"y": 3}))
    assert track.take(_price(18, 17)) == Gap("x", A, 10, 18)


def test_without_a_snapshot_nothing_older_than_the_subscription_is_had() -> None:
    track = _track(snapshot=False)
    assert track.position("x") == Position("e", 10)
    assert [track.take(_price(9, 3)), track.take(_price(11, 9))] == [False, True]


def test_what_is_owed_is_no_position_yet() -> None:
    track = _track()
    assert track.position("x") is None
    assert track.take(_price(4, 2)) is True
    assert track.position("x") == Position("e", 4)
    track.settled()
    assert track.position("x") == Position("e", 10)


def test_positions_of_an_earlier_process_hold_until_something_came() -> None:
    track = Track(snapshot=True, since=Position("e", 7))
    assert track.position("x") == Position("e", 7)
    assert track.answered(_subscribed(10, recovered=True)) is None
    assert track.position("x") == Position("e", 7)
    assert track.take(_price(9, 8)) == Gap("x", A, 7, 9)

    track = Track(snapshot=True, since=Position("e", 7))
    assert track.answered(_subscribed(10, recovered=False)) == Lost(("x",), {}, "")
    assert track.position("x") == Position("e", 7)
    assert track.take(_price(9, 8)) is True

    track = Track(snapshot=True, since=Position("e", 7))
    assert track.answered(_subscribed(10, epoch="other", recovered=False)) == Lost(("x",), {}, "")
    assert track.position("x") is None


def test_a_tape_whose_head_went_back_begins_anew_though_its_name_is_the_same() -> None:
    track = _track()
    assert track.take(_price(11, 4)) is True
    assert track.answered(_subscribed(6, recovered=False)) == Lost(("x",), {}, "")
    assert track.take(_price(5, 4)) is True


def test_a_channel_that_was_left_takes_nothing() -> None:
    track = _track()
    track.leave("x")
    assert track.take(_price(11, 4)) is False
    assert track.channels == ()


def _book(seq: int, prev_seq: int, instrument: str = A, *, through: int | None = None) -> DepthSnapshot | DepthUpdate:
    made = DepthSnapshot(
        connector_id="x",
        exchange="okx",
        instrument=instrument,
        timestamp=STAMP,
        seq=seq,
        prev_seq=prev_seq,
        received_ms=1,
        data=Raw(b"{}"),
        bids=Raw(b"[]"),
        asks=Raw(b"[]"),
        through=UNSET if through is None else through,
    )
    if through is not None:
        return made
    fields = {name: getattr(made, name) for name in DepthUpdate.__struct_fields__}
    return DepthUpdate(**fields)


def test_the_change_after_a_snapshot_for_late_comers_is_no_gap_and_one_that_is_missing_is() -> None:
    track = _track(10)
    assert track.take(_book(9, 7, through=7)) is True
    assert track.take(_book(11, 7)) is True
    assert track.take(_book(13, 12)) == Gap("x", A, 11, 13)


def test_books_are_begun_anew_until_their_whole_state_has_come() -> None:
    track = _track(10)
    track.take(_book(8, 7, through=7))
    assert track.position("x") is None, "the other book may not have come"
    track.settled()
    assert track.position("x") == Position("e", 10)
    track.take(_book(12, 7))
    track.lagged(Lagged(timestamp=STAMP, missed=3, from_seq=13, to_seq=20, by_channel={"x": 3}))
    track.take(_book(18, 16, through=16))
    assert track.position("x") is None
    track.take(_book(21, 16))
    assert track.position("x") == Position("e", 21)


def test_whoever_begins_books_anew_gets_them_whole_though_some_of_it_was_had() -> None:
    track = _track(10)
    track.take(_book(8, 7, through=7))
    track.settled()
    track.take(_book(12, 7))
    assert track.answered(_subscribed(15, recovered=False)) is not None
    assert [track.take(each) for each in (_book(8, 7, through=7), _book(12, 7), _book(16, 12))] == [True] * 3
