"""The session of one client against a naive model: commands, garbage, time and reloads in any order."""

import json
from collections.abc import Callable, Mapping
from fractions import Fraction

import msgspec
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from msgspec import UNSET, Raw

from protocol.channels import Catalogue, Channel
from protocol.kinds import KINDS
from protocol.messages import Error, Format, Id, Pong
from protocol.session import ALL, Close, CommandLimits, Effect, Join, Leave, Reply, Session

NOW = "2025-12-08T16:30:45.123Z"
PAIRS = ("BTC/USDT", "ETH/USDT", "SOL/USDT")
CATALOGUE = Catalogue(
    [
        Channel(
            name="binance_prices",
            exchange="binance",
            kind=KINDS["prices"],
            instruments=(*PAIRS, "DOGE/USDT"),
        ),
        Channel(name="binance_orderbook", exchange="binance", kind=KINDS["orderbook"], instruments=PAIRS),
        Channel(name="coingecko_global", exchange="coingecko", kind=KINDS["global"]),
        Channel(name="bitcoinprice", exchange="okx", kind=KINDS["ticker"], instruments=("BTC/USDT",)),
        Channel(name="ethprice", exchange="okx", kind=KINDS["ticker"], instruments=("ETH/USDT",)),
    ]
)

NAIVE = CommandLimits(
    commands_per_s=2, commands_burst=8, channels_per_command=4, errors_in_a_row=6, errors_per_s=1, errors_burst=9
)
OFFERED: dict[str, tuple[str, ...]] = {channel.name: channel.instruments for channel in CATALOGUE}
GOOD_NAMES = st.lists(st.sampled_from([*OFFERED, ALL]), min_size=1, max_size=4)
NAMES = GOOD_NAMES | GOOD_NAMES | st.lists(st.sampled_from([*OFFERED, "nope", "ethprise", ALL]), max_size=5)
GOOD_INSTRUMENTS = st.lists(st.sampled_from(PAIRS), min_size=1, max_size=3)
INSTRUMENTS = st.none() | GOOD_INSTRUMENTS | st.lists(st.sampled_from([*PAIRS, "X/Y"]), max_size=3)
INTERVALS = st.sampled_from([None] * 6 + [50, 1_000, 3_600_000] * 3 + [0, 49, 3_600_001])
SEQS = st.sampled_from([None] * 6 + [0, 7] * 3 + [-1])
ANY_ID = st.sampled_from([None, 0, 7, -1.5, "", "x"])


def spread(names: list[str], every: list[str]) -> list[str]:
    """Each name once, `*` in place of all."""
    flat: list[str] = []
    for name in names:
        for each in every if name == ALL else [name]:
            if each not in flat:
                flat.append(each)
    return flat


class SessionAgainstModel(RuleBasedStateMachine):
    """The rules of the contract told again, as plainly as can be, and both asked the same."""

    def __init__(self) -> None:
        super().__init__()
        self.now = Fraction(0)
        self.offered = dict(OFFERED)
        self.connect()

    def connect(self) -> None:
        self.session = Session(self.catalogue(), self.wire, NAIVE, float(self.now))
        self.tokens = Fraction(NAIVE.commands_burst)
        self.failures = 0
        self.failing_since = self.now
        self.errors = Fraction(NAIVE.errors_burst)
        self.open = True
        self.subscribed: dict[str, tuple[list[str] | None, int]] = {}

    wire = Format.JSON

    def catalogue(self) -> Catalogue:
        return Catalogue(channel for channel in CATALOGUE if channel.name in self.offered)

    def say(self, command: Mapping[str, object] | str, judge: Callable[[], tuple[list[str], list[object]]]) -> None:
        """Sends one frame; `judge` gives the codes of the errors it deserves, and the answer as `plain` has it."""
        if self.wire is Format.JSON:
            raw: str | bytes = command if isinstance(command, str) else json.dumps(command)
        else:
            raw = b"\xc1" + command.encode() if isinstance(command, str) else msgspec.msgpack.encode(command)
        effects = self.session.receive(raw, float(self.now), NOW)
        if not self.open:
            assert effects == []
            self.connect()
            return
        errors: list[str] = ["rate_limited"]
        answer: list[object] = []
        if self.tokens >= 1:
            self.tokens -= 1
            errors, answer = judge()
        if self.now - self.failing_since > 10:
            self.failures = 0
        if self.failures == 0:
            self.failing_since = self.now
        self.failures = 0 if answer else self.failures + 1
        replies = [effect.message for effect in effects if isinstance(effect, Reply)]
        told = [message for message in replies if isinstance(message, Error)]
        # The errors come first, so that whoever reads the answer has been told what is missing from it.
        assert effects[: len(told)] == [Reply(error) for error in told]
        assert [error.code.value for error in told] == errors
        if isinstance(command, Mapping):
            assert all(error.id == command.get("id") for error in told)
        rest: list[object] = [self.plain(effect) for effect in effects[len(told) :]]
        too_many = not answer and self.errors < 1
        if not answer and not too_many and self.failures < NAIVE.errors_in_a_row:
            self.errors -= 1
        if self.failures == NAIVE.errors_in_a_row or too_many:
            self.open = False
            assert rest == [("close", 1008)]
        else:
            assert rest == ([tuple(answer)] if answer else [])

    def plain(self, effect: Effect) -> tuple[object, ...]:
        match effect:
            case Join():
                since = effect.since and effect.since.seq
                return "join", effect.channels, effect.selection, effect.interval_ms, effect.snapshot, since, effect.id
            case Leave():
                return "leave", effect.channels, effect.id
            case Close():
                return "close", effect.code.value
            case Reply():
                assert isinstance(effect.message, Pong)
                data = effect.message.data
                return "pong", effect.message.id, bytes(data) if isinstance(data, Raw) else data

    def told_to_subscribe(
        self,
        names: list[str],
        only: list[str] | None,
        interval: int | None,
        seq: int | None,
        snapshot: bool | None,
        id_: Id | None,
    ) -> None:
        command: dict[str, object] = {"type": "subscribe", "channels": names}
        options = {"instruments": only, "interval_ms": interval, "snapshot": snapshot, "id": id_}
        command |= {key: value for key, value in options.items() if value is not None}
        if seq is not None:
            command["since"] = {"epoch": "e", "seq": seq}

        def judge() -> tuple[list[str], list[object]]:
            if len(names) > 4:
                return ["too_many_channels"], []
            if not names or only == [] or (seq is not None and seq < 0):
                return ["invalid_field"], []
            if interval is not None and (interval < 50 or interval > 3_600_000):
                return ["invalid_field"], []
            flat = spread(names, list(self.offered))
            errors = [] if all(name in self.offered for name in flat) else ["unknown_channel"]
            known = [name for name in flat if name in self.offered]
            took: list[str] = []
            topics: set[tuple[str, str]] = set()
            bare = False
            for name in known:
                instruments = self.offered[name]
                chosen = [each for each in instruments if each in only] if only is not None and instruments else None
                if chosen == []:
                    bare = True
                    continue
                took.append(name)
                topics |= {(name, each) for each in ([ALL] if chosen is None else chosen)}
                self.subscribed[name] = (chosen, interval or 0)
            there_are = {each for name in known for each in self.offered[name]}
            missing = only is not None and there_are != set() and not set(only) <= there_are
            if missing or (bare and ALL not in names):
                errors.append("unknown_instrument")
            if not took and errors:
                return errors, []
            shown = snapshot is not False
            return errors, ["join", tuple(took), topics, interval or 0, shown, seq, id_]

        self.say(command, judge)

    @rule(
        names=NAMES,
        only=INSTRUMENTS,
        interval=INTERVALS,
        seq=SEQS,
        snapshot=st.sampled_from([None, True, False]),
        id_=ANY_ID,
    )
    def subscribe(
        self,
        names: list[str],
        only: list[str] | None,
        interval: int | None,
        seq: int | None,
        snapshot: bool | None,
        id_: Id | None,
    ) -> None:
        self.told_to_subscribe(names, only, interval, seq, snapshot, id_)

    @rule(names=GOOD_NAMES, only=st.none() | GOOD_INSTRUMENTS, interval=st.sampled_from([None, 50, 1_000]))
    def subscribe_well(self, names: list[str], only: list[str] | None, interval: int | None) -> None:
        self.told_to_subscribe(names, only, interval, None, None, None)

    @rule(names=NAMES, id_=ANY_ID)
    def unsubscribe(self, names: list[str], id_: Id | None) -> None:
        def judge() -> tuple[list[str], list[object]]:
            if len(names) > 4:
                return ["too_many_channels"], []
            if not names:
                return ["invalid_field"], []
            valid = [*self.offered, *(name for name in self.subscribed if name not in self.offered)]
            flat = spread(names, valid)
            known = [name for name in flat if name in valid]
            errors = [] if known == flat else ["unknown_channel"]
            for name in known:
                self.subscribed.pop(name, None)
            return errors, ["leave", tuple(known), id_] if known or not errors else []

        self.say({"type": "unsubscribe", "channels": names, "id": id_}, judge)

    @rule(id_=ANY_ID, data=st.sampled_from([None, [1, "x"], {"a": 0.5}]))
    def ping(self, id_: Id | None, data: object) -> None:
        encode = json.dumps if self.wire is Format.JSON else msgspec.msgpack.encode
        echoed = encode(data)
        raw = echoed.encode() if isinstance(echoed, str) else echoed
        self.say({"type": "ping", "id": id_, "data": data}, lambda: ([], ["pong", id_, raw]))

    @rule(id_=ANY_ID)
    def ping_without_data(self, id_: Id | None) -> None:
        self.say({"type": "ping", "id": id_}, lambda: ([], ["pong", id_, UNSET]))

    @rule(text=st.text(max_size=5).filter(lambda text: not text.startswith("{")))
    def garbage(self, text: str) -> None:
        self.say("?" + text, lambda: (["malformed"], []))

    @rule(
        wrong=st.sampled_from(
            [
                ({"type": "nope"}, "unknown_type"),
                ({}, "unknown_type"),
                ({"type": "subscribe"}, "invalid_field"),
                ({"type": "subscribe", "channels": "*"}, "invalid_field"),
                ({"type": "unsubscribe", "channels": [1]}, "invalid_field"),
            ]
        ),
        id_=ANY_ID,
    )
    def wrong(self, wrong: tuple[dict[str, object], str], id_: Id | None) -> None:
        command, code = wrong
        self.say({**command, "id": id_}, lambda: ([code], []))

    @rule(eighths=st.integers(1, 40))
    def time_passes(self, eighths: int) -> None:
        step = Fraction(eighths, 8)
        self.now += step
        self.tokens = min(self.tokens + step * int(NAIVE.commands_per_s), Fraction(NAIVE.commands_burst))
        self.errors = min(self.errors + step * int(NAIVE.errors_per_s), Fraction(NAIVE.errors_burst))

    @rule(gone=st.sets(st.sampled_from(list(OFFERED))))
    def reload(self, gone: set[str]) -> None:
        self.offered = {name: pairs for name, pairs in OFFERED.items() if name not in gone}
        self.session.catalogue = self.catalogue()

    @precondition(lambda self: self.open)
    @rule()
    def wrong_kind_of_frame(self) -> None:
        raw: str | bytes = b"{}" if self.wire is Format.JSON else "{}"
        [effect] = self.session.receive(raw, float(self.now), NOW)
        assert self.plain(effect) == ("close", 1003)
        self.open = False

    @invariant()
    def the_same_is_subscribed(self) -> None:
        subscriptions = self.session.subscriptions
        assert list(subscriptions) == list(self.subscribed)
        for name, (chosen, interval_ms) in self.subscribed.items():
            instruments = subscriptions[name].instruments
            assert (None if instruments is None else set(instruments)) == (None if chosen is None else set(chosen))
            assert subscriptions[name].interval_ms == interval_ms
        assert self.session.intervals == {interval_ms for _, interval_ms in self.subscribed.values()}
        for interval_ms in (0, 50, 1_000, 3_600_000):
            assert self.session.selection(interval_ms) == {
                (name, instrument)
                for name, (chosen, every) in self.subscribed.items()
                if every == interval_ms
                for instrument in ([ALL] if chosen is None else chosen)
            }


class PackedSessionAgainstModel(SessionAgainstModel):
    wire = Format.MSGPACK


TestSession = SessionAgainstModel.TestCase
TestSession.settings = settings(stateful_step_count=60)
TestPackedSession = PackedSessionAgainstModel.TestCase
TestPackedSession.settings = settings(stateful_step_count=60)
