"""A topic's trouble is told at once, and then every few seconds while it goes on, with the count."""

from connectors.base import TopicNote
from connectors.limits.notes import RENEW_S, NoteLimit


def note(instrument: str = "X/U", reason: str = "odd") -> TopicNote:
    return TopicNote("c", instrument, "unreadable", reason)


def test_what_goes_on_is_told_now_and_then_and_nothing_is_lost_but_repetitions() -> None:
    limit, told = NoteLimit(), []
    for tick in range(201):
        told += [(tick / 10, each.count) for each in limit.due([note()], tick / 10)]
    assert told == [(0.0, 1), (RENEW_S, 50), (2 * RENEW_S, 50), (3 * RENEW_S, 50), (4 * RENEW_S, 50)]


def test_each_topic_and_cause_is_told_by_itself_and_once_of_many() -> None:
    limit = NoteLimit()
    halted = TopicNote("c", "X/U", "halted", "not trading")
    due = limit.due([note(reason="a"), note("Y/U"), halted, note(reason="b")], 0.0)
    assert [(each.instrument, each.cause, each.reason, each.count) for each in due] == [
        *(("X/U", "unreadable", "b", 2), ("Y/U", "unreadable", "odd", 1), ("X/U", "halted", "not trading", 1)),
    ]
    assert limit.due([note()], 1.0) == []
    limit.clear()
    assert [each.count for each in limit.due([note()], 1.0)] == [1], "a new connection tells everything anew"
