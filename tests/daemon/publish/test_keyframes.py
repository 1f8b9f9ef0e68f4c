"""When keyframes are made, what is in them, and what of them outlives a restart."""

import json
from pathlib import Path
from typing import Any

import pytest

from connectors.base import Event
from daemon.host.clock import WallClock
from daemon.publish import keyframes
from daemon.publish.keyframes import EVERY_S, QUICK_BYTES, UPDATES
from daemon.publish.sequencer import known_topics
from daemon.tape.archive import Archive
from daemon.tape.entry import keyframe_topic
from daemon.tape.tape import Tape, Topic
from protocol.channels import Catalogue, Channel
from protocol.fields import DepthFields, SnapshotFields, TradeFields
from protocol.kinds import KINDS
from protocol.messages import Format, Lagged, Trade, number
from tests.daemon.fanout.sink import START_MS, Fan
from tests.daemon.fanout.test_books import CATALOGUE, begins, changes, trade

X: Topic = ("d", "X/U")


def fan(tape: Tape | None = None) -> Fan:
    return Fan(max_entries=100_000, max_bytes=10**8, catalogue=CATALOGUE, tape=tape)


def keyframe(of: Fan, topic: Topic = X) -> dict[str, Any] | None:
    entry = of.tape.newest(keyframe_topic(topic))
    return None if entry is None else json.loads(entry.payload)


def shown(of: Fan, topic: Topic = X) -> list[dict[str, Any]]:
    return [json.loads(payload) for payload in of.tape.payloads(*topic)]


def test_one_is_made_after_so_many_changes_and_names_the_last_of_them() -> None:
    made = fan()
    made.sequencer.publish([[begins(X, ({"1.0": "5"}, {"2.0": "6"}))]])
    made.sequencer.publish([[changes(X, [(f"0.{count + 1000}", "1")], []) for count in range(UPDATES - 1)]])
    assert keyframe(made) is None
    made.sequencer.publish([[changes(X, [("1.0", "0")], [("3.0", "7")])]])
    found = keyframe(made)
    assert found is not None
    assert found["through"] == found["prev_seq"] == UPDATES + 1 == found["seq"] - 1
    assert "reset" not in found
    assert (found["price"], found["data"]) == (1.5, {"symbol": "XU"})
    assert found["asks"] == [["2.0", "6"], ["3.0", "7"]]
    assert found["bids"] == [[f"0.{count + 1000}", "1"] for count in reversed(range(UPDATES - 1))]
    made.sequencer.publish([[changes(X, [("1.5", "1")], [])]])
    assert [each["seq"] for each in shown(made)] == [found["seq"], found["seq"] + 1]
    assert shown(made)[1]["prev_seq"] == found["through"]


def test_one_is_made_after_a_while_of_a_topic_that_changes_and_not_of_another() -> None:
    made = fan()
    made.sequencer.publish([[begins(X, ({"1.0": "5"}, {}))]])
    made.now_ms += int(EVERY_S * 1000) + 1
    made.sequencer.publish([[trade(1)]])
    assert keyframe(made) is None
    made.sequencer.publish([[changes(X, [("1.0", "4")], [])]])
    assert keyframe(made) is not None


def test_a_large_one_waits_until_the_changes_are_as_large_and_is_written_in_parts(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(keyframes, "_PREPARED_BLOCKS", 4)
    bids = {f"{10_000 - level}.5": "1.00000000" for level in range(6000)}
    asks = {f"{10_001 + level}.5": "1.00000000" for level in range(6000)}
    made = fan()
    made.sequencer.publish([[begins(X, (bids, asks))]])
    size = len(made.tape.state(X)[0].text)
    many = [(f"{9000 - level}.5", "2.00000000") for level in range(40)]
    sent = passes = 0
    while (found := keyframe(made)) is None:
        made.sequencer.publish([[changes(X, many, [])]])
        sent += len(made.tape.state(X)[-1].text) if len(made.tape.state(X)) > 1 else 0
        passes += 1
        assert passes < 5000
    assert passes > UPDATES or sent >= size
    assert sent >= size
    bids |= dict(many)
    assert found["bids"] == [[price, bids[price]] for price in sorted(bids, key=float, reverse=True)]
    assert found["asks"] == [[price, asks[price]] for price in sorted(asks, key=float)]


def test_prices_that_are_the_same_float_are_in_order() -> None:
    made = fan()
    prices = [f"0.10000000000000000{digit}" for digit in (3, 1, 9, 5)]
    made.sequencer.publish([[begins(X, ({}, {}))]])
    made.sequencer.publish([[changes(X, [(price, "1") for price in prices], [(price, "1") for price in prices])]])
    made.now_ms += int(EVERY_S * 1000) + 1
    made.sequencer.publish([[changes(X, [], [])]])
    found = keyframe(made)
    assert found is not None
    assert [price for price, _ in found["asks"]] == sorted(prices)
    assert [price for price, _ in found["bids"]] == sorted(prices, reverse=True)


def test_a_small_book_is_made_anew_for_who_would_be_shown_many_changes() -> None:
    made = fan()
    made.sequencer.publish([[begins(X, ({"1.0": "5"}, {}))]])
    made.sequencer.publish([[changes(X, [("1.0", str(count + 1))], []) for count in range(20)]])
    head = made.tape.head
    [found] = shown(made)
    assert (found["seq"], found["through"], found["bids"]) == (head + 1, head, [["1.0", "20"]])
    assert len(shown(made)) == 1
    assert made.tape.head == head + 1, "once for all who come now"
    assert len(made.tape.state(X)[0].text) < QUICK_BYTES


def test_changes_of_no_book_are_shown_to_nobody_who_comes_late() -> None:
    made = fan()
    made.sequencer.publish([[changes(X, [("1.0", "5")], [])]])
    assert shown(made) == []
    made.sequencer.publish([[begins(X, ({"1.0": "5"}, {}))]])
    assert len(shown(made)) == 1


@pytest.mark.parametrize("levels", [b"[[1]]", b"{}", b'[["x","1"]]'])
def test_levels_that_nobody_can_read_end_the_book_and_not_the_daemon(levels: bytes) -> None:
    made = fan()
    good = begins(X, ({"1.0": "5"}, {}))
    for kind in (DepthFields, SnapshotFields):
        made.sequencer.publish([[good]])
        made.sequencer.publish([[Event(*X, b"{}", START_MS, "1.5", fields=kind(levels, b"[]"))]])  # type: ignore[arg-type]
        assert shown(made) == []
    made.sequencer.publish([[good]])
    assert len(shown(made)) == 1


def test_keyframes_are_for_nobody_who_has_the_book() -> None:
    made = fan()
    client = made.connect()
    client.subscribe("d", "e", "t")
    made.sequencer.publish([[begins(X, ({"1.0": "5"}, {}))]])
    made.sequencer.publish([[changes(X, [("1.0", str(count + 1))], []) for count in range(UPDATES)]])
    assert keyframe(made) is not None
    assert client.seqs() == list(range(1, UPDATES + 2))


@pytest.mark.parametrize("clean", [True, False])
def test_after_a_restart_the_stored_book_is_shown_until_the_venues_own_comes(tmp_path: Path, clean: bool) -> None:
    archive = Archive.open(tmp_path / "tape", 1000, 10**6, WallClock(), 1000)
    before = fan(archive.tape)
    before.sequencer.publish([[begins(X, ({"1.0": "5"}, {}))]])
    before.sequencer.publish([[changes(X, [("1.0", str(count + 1))], []) for count in range(UPDATES + 3)]])
    assert keyframe(before) is not None
    expected = shown(before)
    archive.store()
    if clean:
        archive.finish()
    else:
        archive._let_go()
    again = Archive.open(tmp_path / "tape", 1000, 10**6, WallClock(), 1000)
    again.tape.forget(known_topics(CATALOGUE))
    after = fan(again.tape)
    assert shown(after) == expected != []
    client = after.connect()
    client.subscribe("d")
    assert [seq for seq in client.seqs() if seq] == [each["seq"] for each in expected]
    after.sequencer.publish([[begins(X, ({"9.0": "1"}, {}))]])
    assert [each["bids"] for each in shown(after)] == [[["9.0", "1"]]]
    again.finish()


def test_a_channel_that_is_removed_has_no_book_when_it_comes_back() -> None:
    made = fan()
    made.sequencer.publish([[begins(X, ({"1.0": "5"}, {}))]])
    made.sequencer.adopt(Catalogue([CATALOGUE["t"]]))
    made.sequencer.adopt(CATALOGUE)
    assert shown(made) == []
    made.sequencer.publish([[begins(X, ({"1.0": "6"}, {}))]])
    assert len(shown(made)) == 1


def test_of_trades_the_newest_is_shown_and_the_count_of_those_that_are_missed_is_exact() -> None:
    channel = Channel(name="t", exchange="okx", kind=KINDS["trades"], instruments=("X/U",))
    made = Fan(max_entries=4, catalogue=Catalogue([channel]))

    def publish(*names: int) -> None:
        for name in names:
            fields = TradeFields(number("1"), "buy", str(name))
            made.sequencer.publish([[Event("t", "X/U", b"{}", START_MS, "1.5", fields=fields)]])

    publish(1, 2, 3)
    client = made.connect(Format.JSON)
    client.subscribe("t")
    assert [each.trade_id for each in client.messages() if isinstance(each, Trade)] == ["3"]
    client.sink.room = 0
    publish(*range(4, 14))
    client.catch_up()
    told, *trades = [each for each in client.messages() if isinstance(each, Lagged | Trade)]
    assert isinstance(told, Lagged)
    assert told.by_channel == {"t": 9}
    assert [each.trade_id for each in trades if isinstance(each, Trade)] == ["13"]
