"""All faults in one table, with what a daemon is to tell its clients when it meets each: what a rehearsal goes through.

A `Case` is one fault with its parameters. `expects` are states of the venue's channels (`connectors.base.State`): while
the fault lasts, or right after one that acts once, clients must be told at least one of them. Where it is empty they
must be told nothing but `live`: the daemon is to cope without a word. `live` itself is expected where a channel goes on
and its status has to say why a part of it does not. What clients are told of the connection that an `Opening` cuts off,
so that another one is opened, does not count. Whoever rehearses gives a fault its time, which
must be longer than the daemon takes to notice (its silence limit, its next polls), by `Case.lasting`.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, get_args

import msgspec

from connectors.base import State
from connectors.simulator.faults import faults as f
from connectors.simulator.faults.faults import Fault, Lasting, Venue
from connectors.simulator.faults.orders import FAULT_TYPES, allowed

TOLD_BROKEN: Final[frozenset[State]] = frozenset({"reconnecting", "down"})
"""The connection or the poll failed; `down` where it fails again and again, or the venue refuses to serve."""

TOLD_SILENT: Final[frozenset[State]] = frozenset({"stale", "reconnecting", "down"})
"""Nothing comes."""

TOLD_REMARK: Final[frozenset[State]] = frozenset({"live"})
"""A part of what a channel carries does not come, and its status says so, while the rest goes on."""

TOLD_NOTHING: Final[frozenset[State]] = frozenset()


class Parameter(msgspec.Struct, frozen=True):
    """A field of a fault: what it may be in words, and its default (None where there is none, or none is needed)."""

    name: str
    allowed: str
    default: object
    required: bool


class Case(msgspec.Struct, frozen=True):
    """One fault to rehearse, and which states clients must be told (see the module)."""

    fault: Fault
    expects: frozenset[State]

    def lasting(self, for_s: float) -> Fault:
        """The fault with an end; what acts once is as it is."""
        return msgspec.structs.replace(self.fault, for_s=for_s) if isinstance(self.fault, Lasting) else self.fault

    @property
    def title(self) -> str:
        """The fault and the fields that are not the default: `okx disconnect code=1008`."""
        type_ = type(self.fault)
        shown = [
            f"{field.name}={getattr(self.fault, field.name)}"
            for field in msgspec.structs.fields(type_)
            if field.name != "venue" and getattr(self.fault, field.name) != field.default
        ]
        return " ".join([self.fault.venue, self.fault.name, *shown])


class StreamCase(msgspec.Struct, frozen=True):
    """Faults of streams to rehearse; several, where one has no chance to act before another does.

    Attributes:
        faults: All of one venue, ordered one after the other.
        book: Whether clients must be told that a book has a gap: it goes `stale`, and the ledger has it. None: they
            may be.
        trades: The same for trades. Those go on; the ledger has it.
    """

    faults: tuple[Fault, ...]
    book: bool | None = False
    trades: bool | None = False

    @property
    def title(self) -> str:
        """All of them."""
        return ", ".join(Case(fault, TOLD_NOTHING).title for fault in self.faults)


class Kind(msgspec.Struct, frozen=True):
    """One kind of fault.

    Attributes:
        name: As in orders.
        about: For people, one line.
        venues: Which can have it.
        parameters: Its fields beside `venue`.
        cases: What a rehearsal tries.
        streams: What it tries with streams.
    """

    name: str
    about: str
    venues: tuple[Venue, ...]
    parameters: tuple[Parameter, ...]
    cases: tuple[Case, ...]
    streams: tuple[StreamCase, ...] = ()

    def described(self) -> dict[str, object]:
        """As plain values, without the cases."""
        return {
            "fault": self.name,
            "about": self.about,
            "venues": self.venues,
            "parameters": msgspec.to_builtins(self.parameters),
        }


def _cases(expects: frozenset[State], *cases: Fault) -> tuple[Case, ...]:
    return tuple(Case(case, expects) for case in cases)


def _everywhere(expects: frozenset[State], type_: type[Fault], **fields: object) -> tuple[Case, ...]:
    name = f.fault_name(type_.__name__)
    orders = ({"fault": name, "venue": venue, **fields} for venue in type_.venues)
    return _cases(expects, *(msgspec.convert(order, type_) for order in orders))


def _malformed(type_: type[f.WrongTypes | f.MissingFields]) -> tuple[Case, ...]:
    """What the daemon reads of every message, so that it must notice; nothing is left that comes."""
    return (
        *_cases(TOLD_SILENT, type_(venue="okx", field="last"), type_(venue="binance", field="lastPrice")),
        *_cases(TOLD_BROKEN, type_(venue="coingecko", field="data")),
    )


_DATA_LEFT: Final = 0.2
"""Of what cannot be read, a part that is to be borne without a word."""

_CODES: Final[tuple[int, ...]] = get_args(f.CloseCode)

_BY_TYPE: Final[dict[type[Fault], tuple[Case, ...]]] = {
    f.Silence: _cases(TOLD_SILENT, f.Silence(venue="okx"), f.Silence(venue="okx", pongs=False)),
    f.Mute: _cases(TOLD_SILENT, f.Mute(venue="okx")),
    f.AckMissing: (
        *_cases(TOLD_NOTHING, f.AckMissing(venue="okx")),
        *_cases(TOLD_SILENT, f.AckMissing(venue="okx", data=False)),
    ),
    f.Disconnect: tuple(
        Case(msgspec.convert({"fault": "disconnect", "venue": "okx", "code": code}, f.Disconnect), TOLD_BROKEN)
        for code in _CODES
    ),
    f.HangUp: _cases(TOLD_BROKEN, f.HangUp(venue="okx", after_s=0.5), f.HangUp(venue="okx", code=1008, after_s=0.5)),
    f.HalfOpen: _cases(TOLD_SILENT, f.HalfOpen(venue="okx")),
    f.SlowFrames: _cases(TOLD_NOTHING, f.SlowFrames(venue="okx", pause_s=0.0001)),
    f.TornFrame: _cases(TOLD_BROKEN, f.TornFrame(venue="okx", times=1)),
    f.Fragmented: _cases(TOLD_NOTHING, f.Fragmented(venue="okx")),
    f.Garbage: (
        *_cases(TOLD_NOTHING, f.Garbage(venue="okx", share=_DATA_LEFT)),
        *_cases(TOLD_NOTHING, f.Garbage(venue="okx", kind="not_utf8", share=_DATA_LEFT)),
        *_cases(TOLD_NOTHING, f.Garbage(venue="okx", kind="unknown", share=_DATA_LEFT)),
        *_cases(TOLD_BROKEN, f.Garbage(venue="okx", kind="not_a_frame", times=1)),
    ),
    f.Duplicates: _cases(TOLD_NOTHING, f.Duplicates(venue="okx")),
    f.Flood: _cases(
        TOLD_BROKEN,
        f.Flood(venue="okx"),
        f.Flood(venue="okx", what="pings"),
        f.Flood(venue="okx", what="fragments"),
        f.Flood(venue="okx", what="heartbeats"),
    ),
    f.OutOfOrder: _cases(TOLD_NOTHING, f.OutOfOrder(venue="okx"), f.OutOfOrder(venue="okx", how="repeat")),
    f.Notice: _cases(TOLD_NOTHING, f.Notice(venue="okx", close_after_s=5.0)),
    f.WrongTypes: _malformed(f.WrongTypes),
    f.MissingFields: _malformed(f.MissingFields),
    f.EmptyStrings: (
        *_cases(TOLD_SILENT, f.EmptyStrings(venue="okx", field="last")),
        *_cases(TOLD_SILENT, f.EmptyStrings(venue="binance", field="lastPrice")),
        *_cases(TOLD_NOTHING, f.EmptyStrings(venue="coingecko", field="name")),
    ),
    f.HugeNumbers: (
        *_cases(TOLD_SILENT, f.HugeNumbers(venue="okx", field="last")),
        *_cases(TOLD_SILENT, f.HugeNumbers(venue="okx", field="last", kind="exponent")),
        *_cases(TOLD_SILENT, f.HugeNumbers(venue="binance", field="lastPrice")),
        *_cases(TOLD_SILENT, f.HugeNumbers(venue="binance", field="lastPrice", kind="exponent")),
        *_cases(TOLD_BROKEN, f.HugeNumbers(venue="coingecko", field="current_price")),
        *_cases(TOLD_BROKEN, f.HugeNumbers(venue="coingecko", field="current_price", kind="exponent")),
    ),
    f.BadRow: (
        # Its channel carries it alone.
        *_cases(TOLD_SILENT, f.BadRow(venue="okx", instrument="BTC/USDT")),
        *(
            Case(
                msgspec.convert(
                    {"fault": "bad_row", "venue": "binance", "instrument": "ETH/USDT", "what": what}, f.BadRow
                ),
                TOLD_REMARK,
            )
            for what in get_args(f.Oddity)
        ),
    ),
    f.Halted: (
        *_cases(TOLD_SILENT, f.Halted(venue="okx", instrument="BTC/USDT")),
        *_cases(TOLD_REMARK, f.Halted(venue="binance", instrument="ETH/USDT")),
    ),
    f.MuteInstrument: _cases(TOLD_SILENT, f.MuteInstrument(venue="okx", instrument="BTC/USDT")),
    f.MissingRow: _cases(TOLD_REMARK, f.MissingRow(venue="binance", instrument="ETH/USDT")),
    f.EmptyList: (
        *_cases(TOLD_SILENT, f.EmptyList(venue="binance")),
        *_cases(TOLD_BROKEN, f.EmptyList(venue="coingecko")),
    ),
    f.RefusedSubscription: _cases(
        TOLD_SILENT,
        f.RefusedSubscription(venue="okx", instrument="BTC/USDT"),
        f.RefusedSubscription(venue="okx", instrument="BTC/USDT", code="63999"),
        f.RefusedSubscription(venue="okx", instrument="BTC/USDT", code="60018"),
    ),
    f.Delisted: (
        *_cases(TOLD_SILENT, f.Delisted(venue="okx", instrument="BTC/USDT")),
        # Its channels carry others too.
        *_cases(TOLD_REMARK, f.Delisted(venue="binance", instrument="BTC/USDT")),
    ),
    f.ClockSkew: (
        *_everywhere(TOLD_NOTHING, f.ClockSkew, offset_s=-3_600.0),
        *_everywhere(TOLD_NOTHING, f.ClockSkew, offset_s=3_600.0),
    ),
    f.Refuse: _everywhere(TOLD_BROKEN, f.Refuse),
    f.HttpStatus: (
        *_everywhere(TOLD_BROKEN, f.HttpStatus, status=451),
        *_everywhere(TOLD_BROKEN, f.HttpStatus, status=403),
        *_everywhere(TOLD_BROKEN, f.HttpStatus, status=503),
        *_everywhere(TOLD_BROKEN, f.HttpStatus, status=429, retry_after_s=2),
        *_everywhere(TOLD_BROKEN, f.HttpStatus, status=429),
        *_cases(TOLD_BROKEN, f.HttpStatus(venue="binance", status=418, retry_after_s=2)),
        *_cases(TOLD_BROKEN, f.HttpStatus(venue="binance", status=418)),
        *_everywhere(TOLD_BROKEN, f.HttpStatus, status=500),
    ),
    f.SlowHeaders: _everywhere(TOLD_BROKEN, f.SlowHeaders, delay_s=30.0),
    f.TlsFailure: _everywhere(TOLD_BROKEN, f.TlsFailure),
    f.ErrorBody: _everywhere(TOLD_BROKEN, f.ErrorBody),
    f.SlowBody: _everywhere(TOLD_BROKEN, f.SlowBody),
    f.EndlessBody: _everywhere(TOLD_BROKEN, f.EndlessBody),
    f.TruncatedBody: _everywhere(TOLD_BROKEN, f.TruncatedBody),
    f.GarbageBody: (
        *_everywhere(TOLD_BROKEN, f.GarbageBody),
        *_everywhere(TOLD_BROKEN, f.GarbageBody, kind="not_utf8"),
        *_everywhere(TOLD_BROKEN, f.GarbageBody, kind="html"),
        *_everywhere(TOLD_BROKEN, f.GarbageBody, kind="empty"),
    ),
    f.HugeBody: _everywhere(TOLD_BROKEN, f.HugeBody),
    f.Bomb: (*_everywhere(TOLD_BROKEN, f.Bomb), *_everywhere(TOLD_BROKEN, f.Bomb, packed="twice")),
    f.ContentType: _everywhere(TOLD_NOTHING, f.ContentType),
    f.Reset: (*_everywhere(TOLD_BROKEN, f.Reset), *_everywhere(TOLD_BROKEN, f.Reset, after_bytes=300)),
    f.NotModified: (
        *_cases(TOLD_BROKEN, f.NotModified(venue="binance")),
        # Whoever has a body has nothing to complain of.
        *_cases(TOLD_NOTHING, f.NotModified(venue="coingecko")),
    ),
    f.StaleAge: _everywhere(TOLD_NOTHING, f.StaleAge),
}


_BTC: Final = "BTC/USDT"
_ETH: Final = "ETH/USDT"


def _streams(
    type_: type[f.Streamed | f.SequenceReset],
    *venues: Venue,
    book: bool | None = False,
    trades: bool | None = False,
    **fields: object,
) -> tuple[StreamCase, ...]:
    orders = ({"fault": f.fault_name(type_.__name__), "venue": venue, **fields} for venue in venues)
    return tuple(StreamCase((msgspec.convert(order, type_),), book, trades) for order in orders)


_STREAMS: Final[dict[type[Fault], tuple[StreamCase, ...]]] = {
    f.LostUpdates: _streams(f.LostUpdates, *f.STREAMED, instrument=_BTC, times=1, book=True),
    # Some venues' chains are broken by what comes twice.
    f.DoubledUpdates: _streams(f.DoubledUpdates, *f.STREAMED, instrument=_ETH, times=3, book=None, trades=None),
    f.DelayedUpdates: _streams(f.DelayedUpdates, "kraken", "okx", instrument=_ETH, delay_s=1.0),
    f.SwappedUpdates: _streams(f.SwappedUpdates, *f.STREAMED, instrument=_ETH, times=1, book=True, trades=None),
    # Where there is no checksum, nothing tells until the book is crossed.
    f.TornUpdates: _streams(f.TornUpdates, "kraken", instrument=_BTC, times=1, book=True),
    f.WrongChecksum: _streams(f.WrongChecksum, "kraken", instrument=_ETH, times=1, book=True),
    f.CrossedBook: _streams(f.CrossedBook, *f.STREAMED, instrument=_BTC, times=1, book=True),
    f.SequenceReset: _streams(f.SequenceReset, "bybit", "okx", instrument=_ETH),
    f.OldSnapshot: (
        StreamCase(
            (
                f.OldSnapshot(venue="binance", times=2),
                f.LostUpdates(venue="binance", instrument=_ETH, times=1),
            ),
            book=True,
        ),
    ),
    f.LostTrades: (
        *_streams(f.LostTrades, "binance", instrument=_BTC, times=1, trades=True),
        # That ids rise by one is nowhere promised.
        *_streams(f.LostTrades, "kraken", "okx", instrument=_BTC, times=1, trades=None),
        # Its numbers are those of the connection: a trade that is lost is everything that is lost.
        *_streams(f.LostTrades, "coinbase", instrument=_BTC, times=1, book=None, trades=None),
    ),
    f.RepeatedTrades: tuple(
        StreamCase((f.RepeatedTrades(venue=venue),), book=None, trades=None) for venue in ("binance", "bybit", "okx")
    ),
    # Nobody asks here; whoever does is told, and channels go on.
    f.PastCandles: (StreamCase((f.PastCandles(venue="okx"),)),),
    f.OverLimit: tuple(StreamCase((f.OverLimit(venue=venue),), book=None, trades=None) for venue in f.STREAMED),
}


def _parameters(type_: type[Fault]) -> Iterable[Parameter]:
    for field in msgspec.structs.fields(type_):
        if field.name != "venue":
            required = field.default is msgspec.NODEFAULT
            yield Parameter(field.name, allowed(field.type), None if required else field.default, required)


FAULTS: Final[tuple[Kind, ...]] = tuple(
    Kind(
        name,
        (type_.__doc__ or "").partition("\n")[0],
        type_.venues,
        tuple(_parameters(type_)),
        _BY_TYPE.get(type_, ()),
        _STREAMS.get(type_, ()),
    )
    for name, type_ in FAULT_TYPES.items()
)
"""Every fault there is, in the order of `connectors.simulator.faults.faults`."""
