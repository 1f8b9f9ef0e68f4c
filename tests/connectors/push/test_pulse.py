"""Two clocks of silence: pongs stop one of them only, and neither runs while the daemon is busy."""

import msgspec
import pytest

from connectors.base import VenueUnavailable
from connectors.push.pulse import Patience, Pulse
from connectors.push.venue import FeedRules

RULES = FeedRules(
    ping="ping",
    ping_after_s=20,
    pong_s=10,
    requests_per_hour=480,
    connect_spacing_s=0,
    fatal_close_codes=frozenset(),
)


def pulse(silence_s: float = 100) -> Pulse:
    return Pulse("Venue", RULES, silence_s=silence_s, now_s=0)


def test_a_ping_is_due_after_twenty_seconds_without_a_frame_and_once() -> None:
    beat = pulse()
    assert beat.next_due_s(0) == 20
    assert not beat.ping_due(19.9)
    assert beat.ping_due(20)
    assert not beat.ping_due(21)
    beat.rest(22, had_data=False)
    assert not beat.ping_due(41)
    assert beat.ping_due(42)


def test_a_venue_may_want_pings_whatever_comes() -> None:
    beat = Pulse("Venue", msgspec.structs.replace(RULES, ping_every_s=20), silence_s=100, now_s=0)
    pinged = []
    for second in range(1, 65):
        assert beat.next_due_s(second) >= second
        if beat.ping_due(second):
            pinged.append(second)
        beat.check(second)
        beat.rest(second, had_data=True)
    assert pinged == [20, 40, 60]


def test_pings_that_are_always_sent_do_not_put_off_the_end() -> None:
    beat = Pulse("Venue", msgspec.structs.replace(RULES, ping_every_s=5), silence_s=100, now_s=0)
    for second in range(1, 30):
        assert beat.ping_due(second) == (second % 5 == 0)
        beat.check(second)
    with pytest.raises(VenueUnavailable, match=r"^Venue sent nothing for 30 s, not even an answer to a ping$"):
        beat.check(30)


def test_an_unanswered_ping_ends_it() -> None:
    beat = pulse()
    assert beat.ping_due(20)
    assert beat.next_due_s(20) == 30
    beat.check(29.9)
    with pytest.raises(VenueUnavailable, match=r"^Venue sent nothing for 30 s, not even an answer to a ping$"):
        beat.check(30)


def test_answered_pings_do_not_make_up_for_data() -> None:
    beat = pulse(silence_s=30)
    assert beat.ping_due(20)
    beat.answers = True
    beat.rest(20.1, had_data=False)
    beat.check(29.9)
    assert beat.next_due_s(29.9) == 30
    with pytest.raises(VenueUnavailable, match=r"^Venue sent no data for 30 s though it answers pings$"):
        beat.check(30)


def test_data_stops_both_clocks() -> None:
    beat = pulse(silence_s=30)
    beat.rest(25, had_data=True)
    beat.check(54.9)
    with pytest.raises(VenueUnavailable, match=r"^Venue sent no data for 30 s$"):
        beat.check(55)


def test_while_busy_the_venue_is_not_to_blame() -> None:
    beat = pulse(silence_s=30)
    beat.work()
    assert beat.is_busy
    beat.check(1000)
    assert not beat.ping_due(1000)
    assert beat.next_due_s(1000) == 1010
    beat.rest(1001, had_data=True)
    beat.check(1030)
    with pytest.raises(VenueUnavailable):
        beat.check(1031)


def test_patience_grows_with_rare_instruments_and_with_nothing_else() -> None:
    patience = Patience(topics=2)
    assert patience.silence_s(30) == 30
    patience.ended(talks=2, silent=True)
    assert patience.silence_s(30) == 60
    patience.ended(talks=1, silent=False)  # whoever else ends it proves nothing
    assert patience.silence_s(30) == 60
    patience.ended(talks=1, silent=True)
    assert patience.silence_s(30) == 120
    for _ in range(50):
        patience.ended(talks=1, silent=True)
    assert patience.silence_s(30) == Patience.MOST_S
    assert patience.silence_s(1200) == 1200, "never less than configured"
    patience.ended(talks=0, silent=True)  # mute from the start
    assert patience.silence_s(30) == 30
    patience.ended(talks=1, silent=True)
    patience.ended(talks=3, silent=True)
    assert patience.silence_s(30) == 30
