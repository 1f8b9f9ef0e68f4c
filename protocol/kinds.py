"""The kinds of channel, one row each. Code that treats kinds differently asks the row, never the name.

A channel is a venue and a *kind*: what that venue is asked for. The row has everything that other code must know about
its messages: their Structs, what `data` holds, what a reader finds in them, what makes up the state of a topic, and
whether an interval may skip some. A new kind needs a row here, a Struct in `protocol/messages.py`, the content of its
`data` in `protocol/payloads.py`, and a venue that provides it.
"""

from __future__ import annotations

import enum
from typing import Final

import msgspec

from protocol.messages import (
    CandleUpdate,
    ConsolidatedQuote,
    DataMessage,
    DepthSnapshot,
    DepthUpdate,
    MarketUpdate,
    OrderbookUpdate,
    PriceUpdate,
    QuoteUpdate,
    TickerUpdate,
    TopUpdate,
    Trade,
    TrendingUpdate,
)
from protocol.payloads import (
    TICKERS,
    BookData,
    BookLevels,
    Coin,
    ConsolidatedVenues,
    DayTicker,
    DepthSource,
    GlobalMarket,
    PriceData,
    StreamObject,
    TopCoins,
    Trending,
    VenueQuote,
)


class TopicState(enum.Enum):
    """Which messages a client needs to know the current state of a topic."""

    NEWEST = "newest"
    """The newest message: it is the whole state."""

    EVERY = "every"
    """Every message: each stands for itself, as a trade does."""

    DELTA = "delta"
    """The newest message of the row's `snapshot`, and every change since."""


class View(enum.StrEnum):
    """What a reader finds in a message, and so what a table, a page or a comparison of venues can show."""

    PRICE = "price"
    """`price`, of one instrument."""

    DAY = "day"
    """`price`, and in `data` the summary of 24 hours."""

    BOOK = "book"
    """In `data` the levels `bids` and `asks`, best first."""

    TRADE = "trade"
    """`price`, `size` and `side` of one trade."""

    QUOTE = "quote"
    """`bid` and `ask` with their sizes, of one venue."""

    BEST = "best"
    """The same of all venues, with whose they are."""

    DEPTH = "depth"
    """`bids` and `asks`: levels of a whole book that changed, or all of them."""

    CANDLE = "candle"
    """`open`, `high`, `low`, `close` and `volume` of a span of time."""

    MARKET = "market"
    """In `data` figures of the whole market."""

    TOP = "top"
    """In `data` a list of coins by size."""

    TRENDING = "trending"
    """In `data` a list of coins that people search for."""


class Kind(msgspec.Struct, frozen=True, kw_only=True):
    """One kind of channel.

    Attributes:
        name: its name in the configuration and in `GET /channels`.
        message: the Struct that an event of such a channel becomes.
        payloads: what `data` may hold; one for each form in which venues send it.
        view: what a reader finds in its messages.
        most_bytes: the size limit of `data`, several times what venues send. A larger one is refused, because it would
            turn over the history of its channel on the tape.
        whole_market: whether such a channel is one topic, about a whole market; else each instrument is a topic.
        state: what makes up the state of a topic.
        snapshot: for `TopicState.DELTA` the message that begins a topic anew, else None.
        instead: if an interval may skip no message, the kind to use for fewer messages.
        made_of: the kind of the channels whose messages such a channel is made of; "" where a venue has them.
    """

    name: str
    message: type[DataMessage]
    payloads: tuple[type[msgspec.Struct], ...]
    view: View
    most_bytes: int = 16_384
    whole_market: bool = False
    state: TopicState = TopicState.NEWEST
    snapshot: type[DataMessage] | None = None
    instead: str = ""
    made_of: str = ""

    @property
    def tag(self) -> str:
        """The wire's `type` of the message that an event becomes."""
        return str(self.message.__struct_config__.tag)

    @property
    def messages(self) -> tuple[type[DataMessage], ...]:
        """All Structs of its messages."""
        return (self.message,) if self.snapshot is None else (self.message, self.snapshot)

    @property
    def thinnable(self) -> bool:
        """Whether an interval may skip messages: only if the newest one is the whole state."""
        return self.state is TopicState.NEWEST


_ROWS: Final = (
    Kind(name="prices", message=PriceUpdate, payloads=(PriceData,), view=View.PRICE),
    Kind(name="ticker", message=PriceUpdate, payloads=TICKERS, view=View.PRICE),
    Kind(name="24hr", message=TickerUpdate, payloads=(DayTicker,), view=View.DAY),
    Kind(name="orderbook", message=OrderbookUpdate, payloads=(BookData,), view=View.BOOK, most_bytes=65_536),
    Kind(
        name="trades",
        message=Trade,
        payloads=(StreamObject,),
        view=View.TRADE,
        state=TopicState.EVERY,
        instead="quotes",
    ),
    Kind(name="quotes", message=QuoteUpdate, payloads=(StreamObject,), view=View.QUOTE),
    Kind(name="book", message=OrderbookUpdate, payloads=(BookLevels,), view=View.BOOK, most_bytes=262_144),
    Kind(
        name="depth",
        message=DepthUpdate,
        payloads=(DepthSource,),
        view=View.DEPTH,
        most_bytes=8_388_608,
        state=TopicState.DELTA,
        snapshot=DepthSnapshot,
        instead="book",
    ),
    Kind(name="candles", message=CandleUpdate, payloads=(StreamObject,), view=View.CANDLE),
    Kind(
        name="consolidated",
        message=ConsolidatedQuote,
        payloads=(ConsolidatedVenues,),
        view=View.BEST,
        most_bytes=65_536,
        made_of="quotes",
    ),
    Kind(
        name="global",
        message=MarketUpdate,
        payloads=(GlobalMarket,),
        view=View.MARKET,
        most_bytes=65_536,
        whole_market=True,
    ),
    Kind(
        name="top",
        message=TopUpdate,
        payloads=(TopCoins,),
        view=View.TOP,
        most_bytes=262_144,
        whole_market=True,
    ),
    Kind(
        name="trending",
        message=TrendingUpdate,
        payloads=(Trending,),
        view=View.TRENDING,
        most_bytes=262_144,
        whole_market=True,
    ),
)

KINDS: Final = {kind.name: kind for kind in _ROWS}
"""All kinds, by name."""

MESSAGES: Final = tuple(dict.fromkeys(message for kind in _ROWS for message in kind.messages))
"""The Structs of all data messages."""

PAYLOADS: Final[tuple[type[msgspec.Struct], ...]] = (
    *dict.fromkeys(each for kind in _ROWS for each in kind.payloads),
    Coin,
    VenueQuote,
)
"""The Structs of everything that `data` holds, nested ones included."""

VIEWS: Final = {str(message.__struct_config__.tag): kind.view for kind in _ROWS for message in kind.messages}
"""What a reader finds in a message, by its `type`."""


def held(message: type[msgspec.Struct]) -> tuple[type[msgspec.Struct], ...]:
    """What `data` of such messages may hold."""
    return tuple(dict.fromkeys(payload for kind in _ROWS if message in kind.messages for payload in kind.payloads))
