"""What the simulated venues can be told to do wrong: one Struct per fault, plain values without any effect.

As an order (`POST /control` of the simulator, or a step of a scenario file) a fault is a table of its name and fields:
`{"fault": "silence", "venue": "okx", "pongs": true, "for_s": 5}`. A class's name in small letters is the fault's name,
the first line of its docstring describes it to people, its annotations say what is allowed
(`connectors.simulator.faults.orders` checks it), and `venues` where it exists. What a daemon is to do about it is in
`connectors.simulator.faults.table`; how it acts, in `connections`, `frames`, `streams` and `answers` beside it.

    Fault               acts once, at once
    └── Lasting         until `for_s` has passed, it has acted `times` times, or it is cleared
        ├── Opening     on connections that open meanwhile; `drop` cuts off the present ones, so that they have to
        └── Sampled     on a `share` of frames or answers, chosen by the simulator's seed
"""

from __future__ import annotations

import re
from typing import Annotated, ClassVar, Final, Literal, TypeAlias

import msgspec
from msgspec import Meta

Venue: TypeAlias = Literal["binance", "bybit", "coinbase", "coingecko", "kraken", "okx"]
VENUES: Final[tuple[Venue, ...]] = ("binance", "bybit", "coinbase", "coingecko", "kraken", "okx")
SERVED: Final[tuple[Venue, ...]] = ("binance", "coingecko", "okx")
"""Whose answers or tickers can be spoiled one by one."""
REST: Final[tuple[Venue, ...]] = ("binance", "coingecko")
PUSHED: Final[tuple[Venue, ...]] = ("okx",)
STREAMED: Final[tuple[Venue, ...]] = ("binance", "bybit", "coinbase", "kraken", "okx")
"""Those with websockets."""

CloseCode: TypeAlias = Literal[
    1000, 1001, 1006, 1008, 1009, 1011, 1012, 1013, 4001, 4002, 4003, 4004, 4005, 4006, 4007, 4008, 4009
]
"""1006 is the end without a close frame. 4001 to 4009 are OKX's own (v5 API documentation, overview)."""

Duration: TypeAlias = Annotated[float, Meta(gt=0, le=86_400, description="seconds, over 0, up to 86400")]
Delay: TypeAlias = Annotated[float, Meta(ge=0, le=3_600, description="seconds, from 0 to 3600")]
Pause: TypeAlias = Annotated[float, Meta(gt=0, le=1, description="seconds, over 0, up to 1")]
Times: TypeAlias = Annotated[int, Meta(ge=1, le=1_000_000, description="a whole number from 1 to 1000000")]
Few: TypeAlias = Annotated[int, Meta(ge=1, le=10, description="a whole number from 1 to 10")]
Pieces: TypeAlias = Annotated[int, Meta(ge=2, le=16, description="a whole number from 2 to 16")]
Share: TypeAlias = Annotated[float, Meta(gt=0, le=1, description="a number over 0, up to 1")]
Offset: TypeAlias = Annotated[float, Meta(ge=-86_400, le=86_400, description="seconds, from -86400 to 86400")]
Status: TypeAlias = Annotated[int, Meta(ge=400, le=599, description="an HTTP status from 400 to 599")]
ByteCount: TypeAlias = Annotated[int, Meta(ge=0, le=1_000_000, description="a whole number from 0 to 1000000")]
Missing: TypeAlias = Annotated[int, Meta(ge=1, le=1_000_000, description="a whole number from 1 to 1000000")]
Size: TypeAlias = Annotated[int, Meta(ge=1, le=16_000_000, description="a whole number from 1 to 16000000")]
Frames: TypeAlias = Annotated[int, Meta(ge=2, le=100_000, description="a whole number from 2 to 100000")]
Rate: TypeAlias = Annotated[float, Meta(ge=1, le=1e9, description="bytes per second, from 1 to 1000000000")]
Age: TypeAlias = Annotated[int, Meta(ge=0, le=86_400, description="whole seconds from 0 to 86400")]
Wait: TypeAlias = Annotated[int, Meta(ge=0, le=10**12, description="whole seconds from 0 to 1000000000000")]
Member: TypeAlias = Annotated[
    str, Meta(pattern=r"^[A-Za-z0-9_]{1,64}$", description="a member's name: letters, digits and _, up to 64")
]
Reason: TypeAlias = Annotated[str, Meta(pattern=r"^[ -~]{0,100}$", description="printable ASCII, up to 100 characters")]
Path: TypeAlias = Annotated[str, Meta(description="a path that the venue serves")]
Instrument: TypeAlias = Annotated[str, Meta(description="an instrument that the venue lists, such as BTC/USDT")]
Oddity: TypeAlias = Literal["empty", "null", "missing", "type", "nan", "negative", "time", "not_an_object"]
RefusalCode: TypeAlias = Literal["50001", "50013", "50026", "60014", "60018", "63999", "64007"]
ContentTypeText: TypeAlias = Annotated[
    str, Meta(pattern=r"^[a-z0-9.+-]+/[a-z0-9.+-]+$", description="a media type such as text/html")
]


def fault_name(class_name: str) -> str:
    """`TornFrame` is `torn_frame`."""
    return re.sub(r"(?<!^)(?=[A-Z])", "_", class_name).lower()


class Fault(msgspec.Struct, frozen=True, kw_only=True, tag_field="fault", tag=fault_name):
    """A fault of one venue.

    Attributes:
        venue: Whose; may be left out of an order where only one venue has the fault, or `unnamed` says which is meant.
        venues: Which venues can have it.
        unnamed: Whose it is in an order that does not say so.
    """

    venues: ClassVar[tuple[Venue, ...]] = PUSHED
    unnamed: ClassVar[Venue | None] = "okx"
    venue: Venue

    @property
    def name(self) -> str:
        """As in orders."""
        return fault_name(type(self).__name__)


class Lasting(Fault, kw_only=True, frozen=True):
    """A fault that stays on.

    Attributes:
        for_s: Seconds from now; None: until cleared.
        times: It ends after having acted so often; None: however often.
    """

    for_s: Duration | None = None
    times: Times | None = None


class Opening(Lasting, kw_only=True, frozen=True):
    """A fault of connections that open while it is on.

    Attributes:
        drop: Cut off the venue's present websockets first.
    """

    drop: bool = True


class Sampled(Lasting, kw_only=True, frozen=True):
    """A fault of some of the frames or answers.

    Attributes:
        share: The part of them that it acts on.
    """

    share: Share = 1.0


# Websockets


class Silence(Lasting, kw_only=True, frozen=True):
    """Nothing is pushed any more; with `pongs` requests and pings are still answered."""

    venues: ClassVar[tuple[Venue, ...]] = STREAMED

    pongs: bool = True


class Mute(Opening, kw_only=True, frozen=True):
    """Connections are mute from their start: subscriptions are acknowledged, nothing ever comes."""

    venues: ClassVar[tuple[Venue, ...]] = STREAMED


class AckMissing(Opening, kw_only=True, frozen=True):
    """Subscriptions are not acknowledged; with `data` their tickers come all the same."""

    data: bool = True


class Disconnect(Fault, kw_only=True, frozen=True):
    """All connections are closed, once; with code 1006 abruptly, without a close frame."""

    venues: ClassVar[tuple[Venue, ...]] = STREAMED

    code: CloseCode = 1006
    reason: Reason = ""


class HangUp(Lasting, kw_only=True, frozen=True):
    """Every connection is closed so long after it opened (those that are open: from now), again and again."""

    venues: ClassVar[tuple[Venue, ...]] = STREAMED

    code: CloseCode = 1006
    reason: Reason = ""
    after_s: Delay = 1.0


class HalfOpen(Lasting, kw_only=True, frozen=True):
    """On the present connections nothing is read or written any more, but TCP stays; at the end they are cut off."""

    venues: ClassVar[tuple[Venue, ...]] = STREAMED


class SlowFrames(Lasting, kw_only=True, frozen=True):
    """Everything is written byte by byte."""

    venues: ClassVar[tuple[Venue, ...]] = STREAMED

    pause_s: Pause = 0.001


class TornFrame(Sampled, kw_only=True, frozen=True):
    """A ticker's frame is cut in the middle, and the connection with it."""


class Fragmented(Sampled, kw_only=True, frozen=True):
    """Tickers come in several fragments, as RFC 6455 allows; where they are cut, the seed decides."""

    pieces: Pieces = 3


class Garbage(Sampled, kw_only=True, frozen=True):
    """Before a ticker comes a message of nonsense, or (not_a_frame) bytes that break RFC 6455."""

    kind: Literal["not_json", "not_utf8", "unknown", "not_a_frame"] = "not_json"


class Flood(Sampled, kw_only=True, frozen=True):
    """Before a ticker come thousands of pongs, of pings, of the fragments of an empty message, or of heartbeats."""

    what: Literal["pongs", "pings", "fragments", "heartbeats"] = "pongs"
    frames: Frames = 5_000


class Duplicates(Sampled, kw_only=True, frozen=True):
    """Tickers come again, unchanged."""

    copies: Few = 1


class OutOfOrder(Lasting, kw_only=True, frozen=True):
    """Two successive tickers of an instrument change places (swap), or their times stand still (repeat)."""

    how: Literal["swap", "repeat"] = "swap"


class Notice(Fault, kw_only=True, frozen=True):
    """The notice 64008 (reconnect, an upgrade is coming) goes to all connections, which are closed later."""

    close_after_s: Delay = 60.0


# Books and trades


class Streamed(Sampled, kw_only=True, frozen=True):
    """A fault of single frames of a stream.

    Attributes:
        instrument: Of this one alone; None is any.
    """

    venues: ClassVar[tuple[Venue, ...]] = STREAMED
    unnamed: ClassVar[Venue | None] = None
    instrument: Instrument | None = None


class LostUpdates(Streamed, kw_only=True, frozen=True):
    """A book's changes do not come, while the venue goes on as if they had."""


class DoubledUpdates(Streamed, kw_only=True, frozen=True):
    """A book's changes come twice."""


class DelayedUpdates(Streamed, kw_only=True, frozen=True):
    """A book's changes come later than they should, in their order."""

    delay_s: Delay = 2.0


class SwappedUpdates(Streamed, kw_only=True, frozen=True):
    """Two successive changes of a book change places."""


class TornUpdates(Streamed, kw_only=True, frozen=True):
    """A book's changes have half of their levels; their numbers are right."""


class WrongChecksum(Streamed, kw_only=True, frozen=True):
    """A book's frames have a checksum that does not match, where the venue has checksums at all."""

    venues: ClassVar[tuple[Venue, ...]] = ("kraken",)


class CrossedBook(Streamed, kw_only=True, frozen=True):
    """A change has a bid above the best ask, which no later change takes away."""


class SequenceReset(Fault, kw_only=True, frozen=True):
    """The numbers of a book begin anew, once, as after a restart of the venue's engine."""

    venues: ClassVar[tuple[Venue, ...]] = ("bybit", "okx")
    unnamed: ClassVar[Venue | None] = None
    instrument: Instrument


class OldSnapshot(Lasting, kw_only=True, frozen=True):
    """A book's snapshot over REST is older than what the stream said before it was asked for."""

    venues: ClassVar[tuple[Venue, ...]] = ("binance",)
    unnamed: ClassVar[Venue | None] = "binance"
    age_s: Delay = 60.0


class LostTrades(Streamed, kw_only=True, frozen=True):
    """Trades do not come."""


class RepeatedTrades(Opening, kw_only=True, frozen=True):
    """After a subscription come trades that were before it, as history does."""

    venues: ClassVar[tuple[Venue, ...]] = STREAMED
    unnamed: ClassVar[Venue | None] = None
    trades: Annotated[int, Meta(ge=1, le=50, description="a whole number from 1 to 50")] = 20


class OverLimit(Opening, kw_only=True, frozen=True):
    """More connections than so many are over the venue's limits, and are refused in its words."""

    venues: ClassVar[tuple[Venue, ...]] = STREAMED
    unnamed: ClassVar[Venue | None] = None
    connections: Annotated[int, Meta(ge=0, le=1_000, description="a whole number from 0 to 1000")] = 0


# What may happen to every venue


class WrongTypes(Sampled, kw_only=True, frozen=True):
    """A value is of another JSON type: all of that name, or one that the seed chooses."""

    venues: ClassVar[tuple[Venue, ...]] = SERVED
    unnamed: ClassVar[Venue | None] = None
    field: Member | None = None
    path: Path | None = None


class MissingFields(Sampled, kw_only=True, frozen=True):
    """A member is left out: all of that name, or one that the seed chooses."""

    venues: ClassVar[tuple[Venue, ...]] = SERVED
    unnamed: ClassVar[Venue | None] = None
    field: Member | None = None
    path: Path | None = None


class EmptyStrings(Sampled, kw_only=True, frozen=True):
    """A text is empty, as of a pair that has not traded yet: all of that name, or one that the seed chooses."""

    venues: ClassVar[tuple[Venue, ...]] = SERVED
    unnamed: ClassVar[Venue | None] = None
    field: Member | None = None
    path: Path | None = None


class HugeNumbers(Sampled, kw_only=True, frozen=True):
    """A number, or a text of one, has 5000 digits or is 1e400: all of that name, or one that the seed chooses."""

    venues: ClassVar[tuple[Venue, ...]] = SERVED
    unnamed: ClassVar[Venue | None] = None
    kind: Literal["digits", "exponent"] = "digits"
    field: Member | None = None
    path: Path | None = None


class BadRow(Sampled, kw_only=True, frozen=True):
    """One instrument's row is odd while the others are right: its price, its time, a field that is missing, or all."""

    venues: ClassVar[tuple[Venue, ...]] = ("binance", "okx")
    unnamed: ClassVar[Venue | None] = None
    instrument: Instrument
    what: Oddity = "empty"


class Halted(Lasting, kw_only=True, frozen=True):
    """An instrument is not traded any more: its row is three weeks old for ever, and nobody bids or asks."""

    venues: ClassVar[tuple[Venue, ...]] = ("binance", "okx")
    unnamed: ClassVar[Venue | None] = None
    instrument: Instrument


class Delisted(Lasting, kw_only=True, frozen=True):
    """An instrument is not known any more: 60018 and silence on OKX, -1121 on Binance, the like on the others."""

    venues: ClassVar[tuple[Venue, ...]] = STREAMED
    unnamed: ClassVar[Venue | None] = None
    instrument: Instrument


class MuteInstrument(Lasting, kw_only=True, frozen=True):
    """What is of one instrument does not come, while its subscription is acknowledged and the others go on."""

    venues: ClassVar[tuple[Venue, ...]] = STREAMED

    instrument: Instrument


class RefusedSubscription(Opening, kw_only=True, frozen=True):
    """Subscriptions of an instrument are refused, on OKX with an error of those that it takes back sooner or later."""

    venues: ClassVar[tuple[Venue, ...]] = ("bybit", "coinbase", "kraken", "okx")
    instrument: Instrument
    code: RefusalCode = "50013"


class ClockSkew(Lasting, kw_only=True, frozen=True):
    """The venue's clock is wrong: all times in what it sends are shifted."""

    venues: ClassVar[tuple[Venue, ...]] = SERVED
    unnamed: ClassVar[Venue | None] = None
    offset_s: Offset
    path: Path | None = None


class Refuse(Opening, kw_only=True, frozen=True):
    """Connections are reset (TCP RST) as soon as their request shows that they are for the venue."""

    venues: ClassVar[tuple[Venue, ...]] = SERVED
    unnamed: ClassVar[Venue | None] = None
    path: Path | None = None


class HttpStatus(Opening, kw_only=True, frozen=True):
    """Requests (on OKX the opening handshake) are answered with an error status and the venue's words for it."""

    venues: ClassVar[tuple[Venue, ...]] = SERVED
    unnamed: ClassVar[Venue | None] = None
    status: Status
    retry_after_s: Wait | None = None
    path: Path | None = None


class SlowHeaders(Opening, kw_only=True, frozen=True):
    """Answers (on OKX that to the opening handshake) begin late."""

    venues: ClassVar[tuple[Venue, ...]] = SERVED
    unnamed: ClassVar[Venue | None] = None
    delay_s: Delay = 5.0
    path: Path | None = None


class TlsFailure(Opening, kw_only=True, frozen=True):
    """Requests are answered with bytes that are not HTTP: a TLS alert (handshake failure), then the end."""

    venues: ClassVar[tuple[Venue, ...]] = SERVED
    unnamed: ClassVar[Venue | None] = None
    path: Path | None = None


# Answers


class Answered(Sampled, kw_only=True, frozen=True):
    """A fault of answers.

    Attributes:
        path: Of requests for this path alone.
    """

    venues: ClassVar[tuple[Venue, ...]] = REST
    unnamed: ClassVar[Venue | None] = None
    path: Path | None = None


class ErrorBody(Answered, kw_only=True, frozen=True):
    """Answers have status 200 and the body of an error: too many requests."""


class MissingRow(Answered, kw_only=True, frozen=True):
    """One symbol is missing from lists that have it else; the status is 200."""

    venues: ClassVar[tuple[Venue, ...]] = ("binance",)
    unnamed: ClassVar[Venue | None] = "binance"
    instrument: Instrument


class EmptyList(Answered, kw_only=True, frozen=True):
    """Lists of tickers or coins are empty; the status is 200."""


class SlowBody(Answered, kw_only=True, frozen=True):
    """Bodies come slowly."""

    bytes_per_s: Rate = 20.0


class EndlessBody(Answered, kw_only=True, frozen=True):
    """Bodies never end."""

    bytes_per_s: Rate = 50e6


class TruncatedBody(Answered, kw_only=True, frozen=True):
    """Content-Length announces more than comes before the connection ends."""

    missing_bytes: Missing = 100


class GarbageBody(Answered, kw_only=True, frozen=True):
    """Bodies are cut-off JSON, not UTF-8, an HTML page, or empty."""

    kind: Literal["not_json", "not_utf8", "html", "empty"] = "not_json"


class HugeBody(Answered, kw_only=True, frozen=True):
    """Bodies are right, but for a member that makes them far larger than they ever are."""

    size: Size = 7_900_000


class Bomb(Answered, kw_only=True, frozen=True):
    """Bodies are small and unpack to 64 million bytes; twice: the packed bytes are packed once more."""

    packed: Literal["once", "twice"] = "once"


class ContentType(Answered, kw_only=True, frozen=True):
    """Answers are right, but their Content-Type is not."""

    content_type: ContentTypeText = "text/html"


class Reset(Answered, kw_only=True, frozen=True):
    """Connections are reset (TCP RST) after so many bytes of an answer."""

    after_bytes: ByteCount = 0


class NotModified(Answered, kw_only=True, frozen=True):
    """Everything is answered with 304, also what the client has never had."""


class StaleAge(Answered, kw_only=True, frozen=True):
    """Answers say that they have lain in a cache for so long."""

    age_s: Age = 3_600


class PastCandles(Sampled, kw_only=True, frozen=True):
    """Questions about past candles are refused, or answered with odd rows, or not at all.

    Attributes:
        what: `throttled` in the venue's words, `trouble` (HTTP 503), `mute`, `odd_rows` (every other one), `not_json`.
        retry_after_s: What a refusal asks for.
    """

    venues: ClassVar[tuple[Venue, ...]] = STREAMED
    unnamed: ClassVar[Venue | None] = None
    what: Literal["throttled", "trouble", "mute", "odd_rows", "not_json"] = "trouble"
    retry_after_s: Wait | None = None


RowChange: TypeAlias = WrongTypes | MissingFields | EmptyStrings | HugeNumbers | ClockSkew | BadRow | Halted
"""What changes single rows, at every venue."""

UpdateChange: TypeAlias = (
    LostUpdates | DoubledUpdates | DelayedUpdates | SwappedUpdates | TornUpdates | WrongChecksum | CrossedBook
)
"""What acts on single changes of a book."""

FrameChange: TypeAlias = RowChange | TornFrame | Fragmented | Garbage | Flood | Duplicates | OutOfOrder
"""What acts on single tickers of OKX."""

Instead: TypeAlias = Refuse | HttpStatus | TlsFailure | ErrorBody | Delisted | NotModified
"""What takes an answer's place."""

BodyChange: TypeAlias = RowChange | MissingRow | EmptyList | GarbageBody | HugeBody | Bomb
"""What changes an answer's body."""

DeliveryChange: TypeAlias = ContentType | StaleAge | SlowHeaders | SlowBody | EndlessBody | TruncatedBody | Reset
"""What changes how an answer gets there."""
