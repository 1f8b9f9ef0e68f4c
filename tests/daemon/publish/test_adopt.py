"""Another catalogue for a sequencer that runs: what clients are told, and what is kept."""

import msgspec

from connectors.base import Event, StateChange
from daemon.config.load import Config, parse
from daemon.health.board import Board, Verdict
from daemon.host.clock import WallClock
from daemon.publish.bus import Bus
from daemon.publish.sequencer import Sequencer
from daemon.tape.ledger import Ledger
from daemon.tape.tape import Tape

NOW_MS = 1_765_211_445_123
PLAIN = parse("", {}, "a test")


def configured(text: str) -> Config:
    return parse(text, {}, "a test")


class Published:
    """A sequencer under that configuration, and everything that it writes to."""

    def __init__(self, config: Config) -> None:
        self.tape, self.board, self.ledger = Tape(100, 100_000), Board(config.catalogue(), NOW_MS), Ledger()
        clock = WallClock(lambda: NOW_MS * 1_000_000)
        self._sequencer = Sequencer(self.tape, self.board, self.ledger, clock, Bus(), config.hub)
        self.publish = self._sequencer.publish
        self.adopt = self._sequencer.adopt


def event(channel: str, instrument: str) -> Event:
    return Event(channel=channel, instrument=instrument, data=b"{}", received_ms=NOW_MS, price="1.50")


def test_a_channel_that_is_taken_away_is_told_once_and_shown_nowhere() -> None:
    published = Published(PLAIN)
    published.publish([StateChange("ethprice", "live"), [event("ethprice", "ETH/USDT")]])
    head = published.tape.head
    published.adopt(configured("[channels.ethprice]\nenabled = false\n").catalogue())
    [told] = [entry.payload for entry in published.tape.between(head, published.tape.head)]
    assert b"taken out of the configuration" in told
    assert "ethprice" not in published.board.states()
    assert published.tape.payloads("ethprice") == []
    [gap] = [gap for gap in published.ledger.gaps(NOW_MS) if gap.channel == "ethprice"]
    assert (gap.reason, gap.end_ms) == ("taken out of the configuration", NOW_MS)


def test_a_channel_that_stays_keeps_what_is_known_of_it_and_one_that_changes_does_not() -> None:
    published = Published(PLAIN)
    for name, instrument in (("ethprice", "ETH/USDT"), ("bitcoinprice", "BTC/USDT")):
        published.publish(
            [StateChange(name, "live"), [event(name, instrument)], Verdict(name, "freshness", "stale", "late")]
        )
    published.adopt(configured("[channels.bitcoinprice]\ninstrument = 'SOL/USDT'\n").catalogue())
    kept, changed = published.board.state("ethprice"), published.board.state("bitcoinprice")
    assert (kept.state, kept.reason, kept.last_event_ms) == ("stale", "late", NOW_MS)
    assert changed.last_event_ms is None
    assert published.board.verdict("bitcoinprice", "freshness") is None
    assert len(published.tape.payloads("ethprice")) == 1
    assert published.tape.payloads("bitcoinprice") == [], "the price of another instrument"


def test_an_instrument_that_is_taken_out_of_a_channel_is_named_once() -> None:
    both = configured('[channels.ethprice]\nconnector = "okx"\ninstruments = ["ETH/USDT", "SOL/USDT"]\n')
    published = Published(both)
    published.publish([StateChange("ethprice", "live"), [event("ethprice", "ETH/USDT"), event("ethprice", "SOL/USDT")]])
    head = published.tape.head
    published.adopt(PLAIN.catalogue())
    [told] = [entry.payload for entry in published.tape.between(head, published.tape.head)]
    status = msgspec.json.decode(told)
    assert (status["type"], status["channel"], status["state"]) == ("status", "ethprice", "live")
    assert {name: (topic["state"], topic["cause"], topic["reason"]) for name, topic in status["topics"].items()} == {
        "SOL/USDT": ("down", "refused", "taken out of the configuration")
    }
    head = published.tape.head
    published.publish([[event("ethprice", "ETH/USDT")]])
    published.adopt(PLAIN.catalogue())
    assert published.tape.head == head + 1, "once"


def test_a_channel_that_comes_back_goes_on_with_its_chain() -> None:
    published = Published(PLAIN)
    published.publish([[event("ethprice", "ETH/USDT")]])
    last = published.tape.head
    published.adopt(configured("[channels.ethprice]\nenabled = false\n").catalogue())
    published.adopt(PLAIN.catalogue())
    published.publish([[event("ethprice", "ETH/USDT")]])
    [entry] = published.tape.latest(frozenset({("ethprice", "*")}))
    assert f'"prev_seq":{last},'.encode() in entry.payload
    assert entry.ordinal == 2


def test_the_first_word_of_a_new_channel_is_news_to_whoever_is_still_subscribed_to_it() -> None:
    published = Published(configured("[channels.ethprice]\nenabled = false\n"))
    published.adopt(PLAIN.catalogue())
    assert published.board.apply(StateChange("ethprice", "connecting"), NOW_MS) is not None
