"""The best bid and ask over all venues: whose counts, when there is a message, and how the channel does."""

from fractions import Fraction
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import UNSET

from connectors.base import Event, StateChange
from daemon.health.board import Board, Condition, TopicVerdict, Verdict
from daemon.host.clock import WallClock
from daemon.publish.bus import Bus
from daemon.publish.sequencer import Passes, Sequencer
from daemon.tape.ledger import Ledger
from daemon.tape.tape import STATUS, Tape
from protocol.channels import Catalogue, Channel
from protocol.fields import QuoteFields
from protocol.kinds import KINDS
from protocol.messages import State, middle, number

NOW_MS = 1_765_211_445_123
BTC, ETH = "BTC/USDT", "ETH/USDT"
VENUES = ("okx", "kraken", "bybit")


def quotes(venue: str, *instruments: str) -> Channel:
    return Channel(name=f"{venue}_quotes", exchange=venue, kind=KINDS["quotes"], instruments=instruments or (BTC, ETH))


def market(*instruments: str) -> Channel:
    chosen = instruments or (BTC, ETH)
    return Channel(name="market_quotes", exchange="market", kind=KINDS["consolidated"], instruments=chosen)


def quote(venue: str, bid: str, ask: str, *, instrument: str = BTC, size: str = "1", at_ms: int = NOW_MS) -> Event:
    fields = QuoteFields(
        bid=number(bid) if bid else UNSET,
        bid_size=number(size) if bid else UNSET,
        ask=number(ask) if ask else UNSET,
        ask_size=number(size) if ask else UNSET,
    )
    return Event(f"{venue}_quotes", instrument, b"{}", at_ms, price=middle(bid, ask), fields=fields)


class Daemon:
    """A sequencer with these channels, and what it puts on the tape."""

    def __init__(self, *channels: Channel) -> None:
        self.catalogue = Catalogue(channels or (*map(quotes, VENUES), market()))
        self.tape, self.board, self.ledger = Tape(10_000, 10_000_000), Board(self.catalogue, NOW_MS), Ledger()
        self.now_ms = NOW_MS
        clock = WallClock(lambda: self.now_ms * 1_000_000)
        self.sequencer = Sequencer(self.tape, self.board, self.ledger, clock, Bus(), Passes())
        self.sequencer.adopt(self.catalogue)

    def publish(self, *items: Event | StateChange | Verdict | TopicVerdict) -> list[dict[str, Any]]:
        """Publish them. Returns what came of it on the consolidated channel."""
        head = self.tape.head
        for item in items:
            self.sequencer.publish([[item] if isinstance(item, Event) else item])
        said = [msgspec.json.decode(entry.payload) for entry in self.tape.between(head, self.tape.head)]
        return [one for one in said if "market_quotes" in (one.get("connector_id"), one.get("channel"))]

    def live(self, *venues: str) -> None:
        for venue in venues or VENUES:
            self.publish(StateChange(f"{venue}_quotes", "live"))

    def newest(self, instrument: str = BTC) -> dict[str, Any]:
        payload = self.tape.payload("market_quotes", instrument)
        return {} if payload is None else msgspec.json.decode(payload)


def types(said: list[dict[str, Any]]) -> list[str]:
    return [one["type"] for one in said]


def counting(message: dict[str, Any]) -> dict[str, str]:
    """By venue why it does not count; "" if it does."""
    return {each["exchange"]: each["reason"] for each in message["data"]["venues"]}


def test_the_best_of_each_side_is_said_with_its_size_and_whose_it_is() -> None:
    daemon = Daemon()
    daemon.live()
    daemon.publish(quote("okx", "100.10", "100.30", size="2.50"), quote("kraken", "100.2", "100.4", size="0.1"))
    message = daemon.newest()
    assert (message["type"], message["exchange"], message["instrument"]) == ("consolidated_quote", "market", BTC)
    assert (message["bid"], message["bid_size"], message["bid_exchange"]) == (100.2, 0.1, "kraken")
    assert (message["ask"], message["ask_size"], message["ask_exchange"]) == (100.3, 2.5, "okx")
    payload = daemon.tape.payload("market_quotes", BTC) or b""
    assert b'"bid":100.2,' in payload
    assert b'"ask":100.30,' in payload, "the digits as the venue has them"
    assert b'"price":100.25,' in payload


def test_every_venue_is_listed_with_its_quote_its_age_and_why_it_does_not_count() -> None:
    daemon = Daemon()
    daemon.live("okx", "kraken")
    daemon.publish(quote("okx", "100.10", "100.30", at_ms=NOW_MS - 70))
    daemon.publish(quote("kraken", "", "100.4", size="7"))
    daemon.publish(TopicVerdict("okx_quotes", {BTC: Condition("down", "halted", "it is not traded")}))
    assert daemon.newest()["data"] == {
        "symbol": BTC,
        "venues": [
            {"exchange": "okx", "bid": "100.10", "bid_size": "1", "ask": "100.30", "ask_size": "1", "age_ms": 70}
            | {"counts": False, "reason": "it is not traded"},
            {"exchange": "kraken", "bid": "", "bid_size": "", "ask": "100.4", "ask_size": "7", "age_ms": 0}
            | {"counts": True, "reason": ""},
            {"exchange": "bybit", "bid": "", "bid_size": "", "ask": "", "ask_size": "", "age_ms": None}
            | {"counts": False, "reason": "connecting"},
        ],
    }
    assert "bid" not in daemon.newest()
    assert daemon.newest()["ask_exchange"] == "kraken"


def test_prices_are_compared_digit_for_digit() -> None:
    daemon = Daemon()
    daemon.live()
    # As floats these are equal.
    daemon.publish(quote("okx", "100.00000000000000001", "101"), quote("kraken", "100.00000000000000002", "101"))
    assert daemon.newest()["bid_exchange"] == "kraken"


def test_of_equal_prices_the_larger_size_is_the_better_and_then_the_earlier_channel() -> None:
    daemon = Daemon()
    daemon.live()
    daemon.publish(quote("okx", "100", "101", size="1"), quote("kraken", "100.0", "101.0", size="2"))
    assert (daemon.newest()["bid_exchange"], daemon.newest()["ask_exchange"]) == ("kraken", "kraken")
    daemon.publish(quote("kraken", "100.00", "101.00", size="1.0"))
    assert (daemon.newest()["bid_exchange"], daemon.newest()["ask_exchange"]) == ("okx", "okx")


def test_nothing_is_said_when_the_best_does_not_change() -> None:
    daemon = Daemon()
    daemon.live()
    assert types(daemon.publish(quote("okx", "100", "101"))) == ["status", "consolidated_quote"]
    assert types(daemon.publish(quote("kraken", "99", "102"))) == ["consolidated_quote"], "one more counts"
    assert daemon.publish(quote("kraken", "98", "103"), quote("okx", "100.0", "101.00")) == []
    assert types(daemon.publish(quote("okx", "100", "101", size="3"))) == ["consolidated_quote"]
    assert daemon.publish(quote("okx", "7", "8", instrument="DOGE/USDT")) == [], "nobody asked for that one"


def test_a_bid_above_another_venues_ask_is_said_as_it_is() -> None:
    daemon = Daemon()
    daemon.live()
    daemon.publish(quote("okx", "100", "101"), quote("kraken", "102", "103"))
    message = daemon.newest()
    assert (message["bid"], message["bid_exchange"], message["ask"], message["ask_exchange"]) == (
        102,
        "kraken",
        101,
        "okx",
    )
    assert daemon.board.state("market_quotes").state == "live"


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (StateChange("okx_quotes", "reconnecting", "OKX closed"), "reconnecting: OKX closed"),
        (StateChange("okx_quotes", "down", "OKX is away"), "down: OKX is away"),
        (Verdict("okx_quotes", "freshness", "stale", "no message for 9 s"), "stale: no message for 9 s"),
        (
            TopicVerdict("okx_quotes", {BTC: Condition("stale", "gap", "2 updates are missing")}),
            "2 updates are missing",
        ),
        (Verdict("okx_quotes", "crosscheck", "live", "BTC/USDT: crossed", frozenset({BTC})), "BTC/USDT: crossed"),
    ],
)
def test_a_venue_that_is_troubled_does_not_count_and_another_takes_its_place(
    change: StateChange | Verdict | TopicVerdict, reason: str
) -> None:
    daemon = Daemon()
    daemon.live()
    daemon.publish(quote("okx", "100", "101"), quote("kraken", "99", "102"))
    assert types(daemon.publish(change)) == ["consolidated_quote"]
    assert (daemon.newest()["bid_exchange"], daemon.newest()["ask_exchange"]) == ("kraken", "kraken")
    assert counting(daemon.newest()) == {"okx": reason, "kraken": "", "bybit": "no quote yet"}


def test_a_message_about_a_venue_that_dropped_out_is_as_old_as_what_is_left() -> None:
    daemon = Daemon()
    daemon.live()
    daemon.publish(quote("kraken", "99", "102", at_ms=NOW_MS - 500), quote("okx", "100", "101", at_ms=NOW_MS - 100))
    assert daemon.newest()["received_ms"] == NOW_MS - 100
    daemon.publish(StateChange("okx_quotes", "down", "gone"))
    assert daemon.newest()["received_ms"] == NOW_MS - 500
    daemon.publish(StateChange("kraken_quotes", "down", "gone"))
    assert daemon.newest()["received_ms"] == NOW_MS - 100, "the newest of all, where none counts"


def test_a_remark_about_one_instrument_leaves_the_others_alone() -> None:
    daemon = Daemon()
    daemon.live()
    daemon.publish(quote("okx", "100", "101"), quote("okx", "10", "11", instrument=ETH))
    daemon.publish(Verdict("okx_quotes", "crosscheck", "live", "ETH/USDT: crossed", frozenset({ETH})))
    assert counting(daemon.newest(BTC))["okx"] == ""
    assert counting(daemon.newest(ETH))["okx"] == "ETH/USDT: crossed"
    daemon.publish(Verdict("okx_quotes", "crosscheck", "live"))
    assert counting(daemon.newest(ETH))["okx"] == ""


def test_what_a_venue_said_before_its_link_was_lost_does_not_count_when_the_link_is_there_again() -> None:
    daemon = Daemon()
    daemon.live()
    daemon.publish(quote("okx", "100", "101"), quote("okx", "10", "11", instrument=ETH), quote("kraken", "99", "102"))
    daemon.publish(StateChange("okx_quotes", "reconnecting", "lost"), StateChange("okx_quotes", "connecting"))
    daemon.live("okx")
    assert daemon.newest()["bid_exchange"] == "kraken"
    daemon.publish(quote("okx", "10.5", "11", instrument=ETH))
    assert daemon.newest(ETH)["bid_exchange"] == "okx"
    assert daemon.newest(BTC)["bid_exchange"] == "kraken"
    daemon.publish(quote("kraken", "99", "101.5"))
    assert counting(daemon.newest())["okx"] == "no quote since it began anew"
    daemon.publish(quote("okx", "100", "101"))
    assert daemon.newest()["bid_exchange"] == "okx"


def test_the_channel_is_live_while_any_venue_counts_and_stale_with_the_reasons_when_none_does() -> None:
    daemon = Daemon()
    assert daemon.board.state("market_quotes").state == "connecting"
    daemon.live()
    daemon.publish(quote("okx", "100", "101"), quote("kraken", "10", "11", instrument=ETH))
    assert daemon.board.state("market_quotes").state == "live"
    told = daemon.publish(StateChange("okx_quotes", "reconnecting", "OKX closed"))
    assert types(told) == ["status", "consolidated_quote"]
    assert told[0]["state"] == "live"
    assert told[0]["topics"][BTC]["state"] == "stale"
    assert told[0]["topics"][BTC]["reason"] == (
        "no venue counts: okx: reconnecting: OKX closed; kraken: no quote yet; bybit: no quote yet"
    )
    assert told[1].keys().isdisjoint({"bid", "ask", "price"})
    daemon.publish(StateChange("kraken_quotes", "down", "gone"))
    state = daemon.board.state("market_quotes")
    assert state.state == "stale"
    assert "BTC/USDT: no venue counts" in state.reason
    assert {gap.channel for gap in daemon.ledger.gaps(NOW_MS)} >= {"market_quotes"}
    daemon.live("okx")
    told = daemon.publish(quote("okx", "100", "101"))
    assert types(told) == ["status", "consolidated_quote"]
    assert (told[0]["state"], list(told[0]["topics"])) == ("live", [ETH])


def test_venues_that_never_came_make_it_stale_from_the_beginning() -> None:
    daemon = Daemon(quotes("okx", BTC), market(BTC))
    told = daemon.publish(StateChange("okx_quotes", "reconnecting", "OKX cannot be reached"))
    assert [(one["type"], one["state"]) for one in told] == [("status", "stale")]
    assert told[0]["reason"] == "BTC/USDT: no venue counts: okx: reconnecting: OKX cannot be reached"


def test_an_instrument_that_no_channel_has_is_told_at_once() -> None:
    daemon = Daemon(quotes("okx", BTC), market(BTC, "DOGE/BTC"))
    assert daemon.board.topics("market_quotes").keys() == {"DOGE/BTC"}
    assert daemon.board.topics("market_quotes")["DOGE/BTC"].condition == Condition(
        "stale", "silent", "no channel of kind quotes has it"
    )


def test_of_two_channels_of_one_venue_it_is_listed_once() -> None:
    second = Channel(name="mine", exchange="okx", kind=KINDS["quotes"], instruments=(BTC,))
    daemon = Daemon(quotes("okx", BTC), second, market(BTC))
    daemon.publish(StateChange("mine", "live"), msgspec.structs.replace(quote("okx", "5", "6"), channel="mine"))
    assert counting(daemon.newest()) == {"okx": ""}
    assert daemon.newest()["bid"] == 5


def test_only_the_messages_of_quotes_count_whatever_else_a_channel_may_send() -> None:
    daemon = Daemon()
    daemon.live()
    daemon.publish(msgspec.structs.replace(quote("okx", "5", "6"), fields=None))
    assert daemon.newest() == {}


# Another catalogue.


def test_a_reload_that_takes_a_venue_away_takes_its_quote_away() -> None:
    daemon = Daemon()
    daemon.live()
    daemon.publish(quote("okx", "100", "101"), quote("kraken", "99", "102"))
    daemon.sequencer.adopt(Catalogue([quotes("kraken"), quotes("bybit"), market()]))
    assert counting(daemon.newest())["okx"] == "down: taken out of the configuration"
    assert daemon.newest()["bid_exchange"] == "kraken"
    daemon.publish(quote("kraken", "98", "102"))
    assert counting(daemon.newest()) == {"kraken": "", "bybit": "no quote yet"}


def test_a_reload_that_changes_something_else_keeps_all_quotes() -> None:
    daemon = Daemon()
    daemon.live()
    daemon.publish(quote("okx", "100", "101"))
    head = daemon.tape.head
    daemon.sequencer.adopt(Catalogue([*map(quotes, VENUES), market(), quotes("coinbase")]))
    assert [entry.topic for entry in daemon.tape.between(head, daemon.tape.head)] == []
    daemon.publish(quote("kraken", "99", "102"))
    assert list(counting(daemon.newest()).items())[:3] == [("okx", ""), ("kraken", ""), ("bybit", "no quote yet")]
    assert counting(daemon.newest())["coinbase"] == "down: its connector has not been started yet"


def test_a_reload_that_takes_all_venues_away_leaves_a_stale_channel() -> None:
    daemon = Daemon()
    daemon.live()
    daemon.publish(quote("okx", "100", "101"))
    daemon.sequencer.adopt(Catalogue([market()]))
    assert not any(each["counts"] for each in daemon.newest()["data"]["venues"])
    assert daemon.board.state("market_quotes").state == "stale"
    assert "no channel of kind quotes has it" in daemon.board.state("market_quotes").reason


def test_a_consolidated_channel_can_come_and_go_by_a_reload() -> None:
    daemon = Daemon(quotes("okx"))
    daemon.live("okx")
    daemon.publish(quote("okx", "100", "101"))
    daemon.sequencer.adopt(Catalogue([quotes("okx"), market()]))
    assert daemon.board.state("market_quotes").state == "connecting"
    daemon.publish(quote("okx", "100", "101"))
    assert daemon.board.state("market_quotes").state == "live"
    daemon.sequencer.adopt(Catalogue([quotes("kraken")]))
    assert "market_quotes" not in daemon.board.states()
    *_, last = daemon.tape.between(0, daemon.tape.head)
    assert last.topic != ("market_quotes", BTC)
    assert daemon.publish(quote("okx", "1", "2")) == []


# Whatever happens, in whatever order.

PRICES = st.sampled_from(["", "99.9", "100", "100.0", "100.00000000000000001", "1e2", "101"])
SIZES = st.sampled_from(["1", "1.0", "2"])
STATES = st.sampled_from(["connecting", "live", "reconnecting", "down"])
STEPS = st.one_of(
    st.tuples(st.just("quote"), st.sampled_from(VENUES), st.sampled_from([BTC, ETH]), PRICES, PRICES, SIZES),
    st.tuples(
        st.just("state"), st.sampled_from(VENUES), st.sampled_from(["connecting", "live", "reconnecting", "down"])
    ),
    st.tuples(st.just("topics"), st.sampled_from(VENUES), st.sets(st.sampled_from([BTC, ETH]))),
    st.tuples(st.just("remark"), st.sampled_from(VENUES), st.sampled_from(["freshness", "crosscheck"]), st.booleans()),
)


class Model:
    """The same by other means: everything is worked out anew after each step."""

    def __init__(self) -> None:
        self.state: dict[str, State] = dict.fromkeys(VENUES, "connecting")
        self.held: dict[tuple[str, str], tuple[str, str, str]] = {}
        self.troubled: dict[str, set[str]] = {venue: set() for venue in VENUES}
        self.remarks: set[tuple[str, str]] = set()

    def counted(self, instrument: str) -> list[str]:
        return [
            venue
            for venue in VENUES
            if self.state[venue] == "live"
            and (venue, instrument) in self.held
            and instrument not in self.troubled[venue]
            and not {(venue, "freshness"), (venue, "crosscheck")} & self.remarks
        ]

    def best(self, instrument: str, side: int) -> tuple[Fraction, Fraction, str] | None:
        sign = (1, -1)[side]
        offers = [
            (sign * Fraction(held[side]), Fraction(held[2]), -VENUES.index(venue))
            for venue in self.counted(instrument)
            if (held := self.held[venue, instrument])[side]
        ]
        if not offers:
            return None
        price, size, place = max(offers)
        return price * sign, size, VENUES[-place]


def seen(message: dict[str, Any], payload: bytes, side: str) -> tuple[Fraction, Fraction, str] | None:
    if side not in message:
        return None
    exact = msgspec.json.decode(payload, type=dict[str, msgspec.Raw])
    price, size = (Fraction(bytes(exact[name]).decode()) for name in (side, f"{side}_size"))
    return price, size, message[f"{side}_exchange"]


@settings(deadline=None, max_examples=60)
@given(st.lists(STEPS, max_size=30))
def test_after_any_steps_the_newest_message_says_what_there_is(steps: list[tuple[Any, ...]]) -> None:
    daemon, model = Daemon(), Model()
    said: dict[str, tuple[object, ...]] = {}
    for what, venue, *rest in steps:
        name = f"{venue}_quotes"
        if what == "quote":
            instrument, bid, ask, size = rest
            daemon.publish(quote(venue, bid, ask, instrument=instrument, size=size))
            model.held[venue, instrument] = (bid, ask, size)
        elif what == "state":
            daemon.publish(StateChange(name, rest[0]))
            model.state[venue] = rest[0]
            if rest[0] != "live":
                model.held = {key: value for key, value in model.held.items() if key[0] != venue}
            if rest[0] in ("reconnecting", "down"):
                model.troubled[venue] = set()
                model.remarks -= {(venue, "freshness"), (venue, "crosscheck")}
        elif what == "topics":
            daemon.publish(TopicVerdict(name, {one: Condition("live", "unreadable", "odd") for one in rest[0]}))
            model.troubled[venue] = set(rest[0])
        else:
            source, on = rest
            state = "stale" if source == "freshness" and on else "live"
            concerned = frozenset({BTC, ETH}) if source == "crosscheck" else frozenset[str]()
            daemon.publish(Verdict(name, source, state, "why" if on else "", concerned))  # type: ignore[arg-type]
            model.remarks = model.remarks | {(venue, source)} if on else model.remarks - {(venue, source)}
        for instrument in (BTC, ETH):
            message, payload = daemon.newest(instrument), daemon.tape.payload("market_quotes", instrument) or b""
            counted = model.counted(instrument)
            if not message:
                assert counted == []
                continue
            assert [venue for venue, reason in counting(message).items() if not reason] == counted
            best = [seen(message, payload, side) for side in ("bid", "ask")]
            assert best == [model.best(instrument, side) for side in (0, 1)]
            now = (*best, *counted)
            assert said.get(instrument) in (None, (message["seq"], *now)) or said[instrument][1:] != now
            said[instrument] = (message["seq"], *now)
            assert (instrument in daemon.board.topics("market_quotes")) == (not counted)
        anyone = any(map(model.counted, (BTC, ETH)))
        assert (daemon.board.state("market_quotes").state == "live") >= anyone
        if daemon.newest(BTC) and daemon.newest(ETH):
            assert (daemon.board.state("market_quotes").state == "live") == anyone


def test_a_status_is_on_the_tape_as_that_of_any_other_channel() -> None:
    daemon = Daemon()
    daemon.live()
    daemon.publish(quote("okx", "1", "2"))
    assert b'"state":"live"' in (daemon.tape.payload("market_quotes", STATUS) or b"")
