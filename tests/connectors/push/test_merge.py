"""What two connections hand on: one sequence, and one voice."""

import pytest
import trio

from connectors.base import Event, StateChange
from connectors.push.intake import FeedStatistics
from connectors.push.merge import Merge, Side
from tests.connectors.push.scripted_venue import Hub


def tick(number: int, name: str = "a") -> Event:
    return Event(f"{name}price", name.upper(), b"%d" % number, 0, str(number), number, order=number)


class Two:
    """One connection that speaks, and another that takes over from it."""

    def __init__(self) -> None:
        self.hub = Hub()
        self.counts = FeedStatistics()
        self.merge = Merge(self.hub, self.counts)
        self.old = Side(self.merge, speaks=True)
        self.new = Side(self.merge, speaks=False)


@pytest.fixture
def two() -> Two:
    return Two()


async def test_one_connection_publishes_what_it_likes(two: Two) -> None:
    await two.old.publish([tick(2), tick(1), tick(1)])
    assert two.hub.prices == ["2", "1", "1"]
    assert two.counts.duplicates == 0


async def test_two_are_one_sequence_until_one_of_them_is_left_and_up_to_date(two: Two) -> None:
    await two.old.publish([tick(1)])
    overlap = two.merge.begin(two.new)
    await two.old.publish([tick(2)])
    await two.new.publish([tick(2), tick(3)])
    await two.old.publish([tick(3)])
    assert two.hub.prices == ["1", "2", "3"]
    await two.merge.drop_old(overlap, two.new, {})
    await two.new.publish([tick(3)])
    assert two.hub.prices == ["1", "2", "3", "3"]
    assert two.counts.duplicates == 2


async def test_the_new_one_keeps_what_it_would_report_until_it_speaks_and_forgets_what_its_data_disproves(
    two: Two,
) -> None:
    overlap = two.merge.begin(two.new)
    for name in ("a", "b"):
        await two.new.report(StateChange(f"{name}price", "stale", "mute"))
    await two.old.report(StateChange("cprice", "stale", "mute"))
    await two.new.publish([tick(1)])
    assert two.hub.changes == [StateChange("cprice", "stale", "mute")]
    await two.merge.drop_old(overlap, two.new, {})
    await two.new.report(StateChange("aprice", "stale", "later"))
    assert two.hub.changes[1:] == [StateChange("bprice", "stale", "mute"), StateChange("aprice", "stale", "later")]


async def test_a_channel_that_only_the_lost_one_had_is_reported(two: Two) -> None:
    await two.old.publish([tick(1), tick(1, "b")])
    overlap = two.merge.begin(two.new)
    await two.new.publish([tick(1)])
    await two.merge.drop_old(overlap, two.new, {"aprice": "it broke", "bprice": "it broke"})
    assert two.hub.changes == [StateChange("bprice", "reconnecting", "it broke")]


async def test_if_the_new_one_is_gone_the_old_one_goes_on_as_before(two: Two) -> None:
    await two.old.publish([tick(1)])
    overlap = two.merge.begin(two.new)
    await two.new.publish([tick(2)])
    await two.merge.drop_new(overlap)
    await two.old.publish([tick(2), tick(3)])
    assert two.hub.prices == ["1", "2", "3"]


def test_the_first_notice_counts(two: Two) -> None:
    two.old.announce_end("an upgrade")
    two.old.announce_end("another one")
    assert two.old.notice == "an upgrade"
    assert two.old.noticed.is_set()


async def test_stamps_are_the_daemons(two: Two) -> None:
    assert two.old.now_ms() == two.hub.now_ms()
    await trio.lowlevel.checkpoint()
