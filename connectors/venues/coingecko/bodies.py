"""CoinGecko's bodies as events; what is wrong with them, and with single rows of a list. No I/O.

Source: `coingecko/coingecko-api-oas`. A list is one message, so a row that cannot be read, or that is no price of
today, is left out of it and noted by the coin's name. Everything but `id`, `symbol` and `name` may be null: a coin
without a price is one that CoinGecko has none of. A list without any row is trouble at CoinGecko, not an empty market.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Final, Protocol, TypeVar

import msgspec
from msgspec import UNSET, Raw, UnsetType

from connectors.base import Event, PayloadError, Rows, TopicNote
from connectors.limits.payload import brief, read, spliced
from connectors.limits.rows import Ages, Odd, check_time, member, quoted, read_row, shown

T = TypeVar("T")

MOST_NAMED: Final = 3
"""So many of the rows that are left out are named; the others are counted."""


class Global(msgspec.Struct):
    """`GET /global`: `{"data":{"active_cryptocurrencies":17397,...,"updated_at":1779878351}}`."""

    data: Raw


class Market(msgspec.Struct):
    """The part of `data` that is looked into; `updated_at` is in seconds.

    `{"total_market_cap":{"usd":2621040321355.0405},"updated_at":1779878351,...}`
    """

    total_market_cap: dict[str, float | None]
    updated_at: int | None = None


class Coin(msgspec.Struct):
    """What is looked into of a row of `GET /coins/markets`.

    `{"id":"bitcoin","symbol":"btc","name":"Bitcoin","current_price":77671,"last_updated":"2026-05-18T12:49:21.599Z"}`
    """

    id: str
    symbol: str
    name: str
    current_price: float | None = None
    last_updated: str | None = None


class Trend(msgspec.Struct):
    """What is looked into of a coin of `GET /search/trending`: `{"item":{"id":"bonk","price_btc":7.8e-11,...}}`."""

    item: Item


class Item(msgspec.Struct):
    """`{"id":"bonk","name":"Bonk","symbol":"BONK","price_btc":7.821066970851871e-11,"data":{...},...}`."""

    id: str
    name: str = ""
    symbol: str = ""
    price_btc: float | None = None
    data: ItemData | UnsetType | None = UNSET


class ItemData(msgspec.Struct):
    """`{"price":5.938674704566297e-06,"price_change_percentage_24h":{"usd":-3.27},...}`: `price` was text before."""

    price: float | str | None = None
    price_change_percentage_24h: dict[str, float | None] | None = None


class Trending(msgspec.Struct):
    """`GET /search/trending`: `{"coins":[{"item":{"id":"bonk",...}}],"nfts":[...],"categories":[...]}`."""

    coins: list[Raw]


class Normaliser(Protocol):
    """A body as one event, and what is wrong with its rows.

    Raises PayloadError where the body is not what is documented, and nothing else, whatever the bytes.
    """

    def __call__(self, body: bytes, *, channel: str, received_ms: int, ages: Ages, venue_ms: int | None = None) -> Rows:
        """Raises: PayloadError."""
        ...


def market(body: bytes, *, channel: str, received_ms: int, ages: Ages, venue_ms: int | None = None) -> Rows:
    """`GET /global`: the object inside `data`.

    Raises:
        PayloadError: whatever is wrong with the body.
    """
    raw = read(body, Global).data
    exchange_ms: int | None = None
    try:
        seen = read_row(bytes(raw), Market)
        if not seen.total_market_cap:
            raise Odd(f"{quoted('total_market_cap')} is empty")
        for currency, cap in seen.total_market_cap.items():
            if cap is not None and cap < 0:
                raise Odd(f"{quoted('total_market_cap')} in {brief(currency)} is {shown(cap)}, below 0")
        if seen.updated_at is not None:
            exchange_ms = seen.updated_at * 1_000
            check_time(exchange_ms, "updated_at")
            ages.check("", "updated_at", exchange_ms, _now_ms(received_ms, venue_ms))
    except Odd as odd:
        if odd.cause != "halted":
            raise PayloadError(f"not the body that is documented: {odd}") from None
        old = f"CoinGecko's figures are old: {str(odd).removeprefix('not trading: ')}"
        return Rows([], [TopicNote(channel, "", "halted", old)])
    return Rows([Event(channel, "", spliced(raw), received_ms, exchange_ms=exchange_ms)], [])


def top(body: bytes, *, channel: str, received_ms: int, ages: Ages, venue_ms: int | None = None) -> Rows:
    """`GET /coins/markets`: the list, as `coins`.

    Raises:
        PayloadError: it is no list of coins, or none of its rows can be used.
    """
    rows = _listed(body, list[Raw])
    now_ms = _now_ms(received_ms, venue_ms)
    seen: dict[str, bytes] = {}

    def check(row: bytes) -> bool:
        coin = read_row(row, Coin)
        _named(coin.id)
        if coin.current_price is not None:
            _positive(coin.current_price, "current_price")
        if coin.last_updated is not None:
            ages.check(coin.id, "last_updated", _moment_ms(coin.last_updated), now_ms)
        return _is_new(seen, coin.id, row)

    good, bad = _sifted(rows, check, lambda row: member(row, "id"))
    if not good:
        raise PayloadError(_none_left("coins", bad))
    # As it came, where all of it is good.
    coins = spliced(body) if len(good) == len(rows) else b"[" + b",".join(map(spliced, good)) + b"]"
    return Rows([Event(channel, "", b'{"coins":' + coins + b"}", received_ms)], _left_out(channel, "coins", bad))


def trending(body: bytes, *, channel: str, received_ms: int, ages: Ages, venue_ms: int | None = None) -> Rows:
    """`GET /search/trending`: the object as it is, without the coins that cannot be read.

    Raises:
        PayloadError: it is not that object, or none of its coins can be used.
    """
    rows = _listed(body, Trending).coins
    seen: dict[str, bytes] = {}

    def check(row: bytes) -> bool:
        item = read_row(row, Trend).item
        _named(item.id)
        if item.price_btc is not None:
            _positive(item.price_btc, "price_btc")
        if not isinstance(item.data, UnsetType) and item.data and isinstance(item.data.price, float):
            _positive(item.data.price, "price")
        return _is_new(seen, item.id, row)

    def name(row: bytes) -> object:
        item = member(row, "item")
        return item.get("id") if isinstance(item, dict) else None

    good, bad = _sifted(rows, check, name)
    if not good:
        raise PayloadError(_none_left("coins", bad))
    if len(good) == len(rows):
        data = spliced(body)
        read(data, Raw)
    else:
        members = read(_without(body, rows), dict[str, Raw])
        data = msgspec.json.encode({**members, "coins": [Raw(spliced(row)) for row in good]})
    return Rows([Event(channel, "", data, received_ms)], _left_out(channel, "trending coins", bad))


def _listed(body: bytes, type_: type[T]) -> T:
    """The list that the rows are in, of which nothing has been looked over. Raises: PayloadError."""
    try:
        return msgspec.json.decode(body, type=type_)
    except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
        raise PayloadError(f"not the body that is documented: {error}"[:200]) from error


def _without(body: bytes, rows: Sequence[Raw]) -> bytes:
    """The body with nulls for its coins, so that a bad one among them does not spoil what else there is."""
    members = _listed(body, dict[str, Raw])
    return msgspec.json.encode({**members, "coins": Raw(b"[]")}) if rows else body


def _sifted(
    rows: Sequence[Raw], check: Callable[[bytes], bool], name: Callable[[bytes], object]
) -> tuple[list[Raw], list[str]]:
    """The rows that are good, and what is wrong with each of the others. Rows that came before are left out."""
    good: list[Raw] = []
    bad: list[str] = []
    for number, raw in enumerate(rows, 1):
        row = bytes(raw)
        try:
            if check(row):
                good.append(raw)
        except Odd as odd:
            named = name(row)
            who = brief(named) if isinstance(named, str) and named else f"row {number}"
            bad.append(f"{who}: {odd}")
    return good, bad


def _is_new(seen: dict[str, bytes], key: str, row: bytes) -> bool:
    """Whether no row of that id came before. Raises: Odd, where a different one did."""
    before = seen.setdefault(key, row)
    if before is row:
        return True
    if before != row:
        raise Odd("it is in the list twice, with different values")
    return False


def _left_out(channel: str, what: str, bad: Sequence[str]) -> list[TopicNote]:
    if not bad:
        return []
    more = f" and {len(bad) - MOST_NAMED} more" if len(bad) > MOST_NAMED else ""
    reason = f"{what} left out: {'; '.join(bad[:MOST_NAMED])}{more}"
    return [TopicNote(channel, "", "unreadable", reason, count=len(bad), partial=True)]


def _none_left(what: str, bad: Sequence[str]) -> str:
    return f"CoinGecko sent a list without {what}" + (f" that can be used: {bad[0]}" if bad else "")


def _named(id_: str) -> None:
    """Raises: Odd."""
    if not id_:
        raise Odd(f"{quoted('id')} is empty")


def _positive(value: float, field: str) -> None:
    """Raises: Odd."""
    if value == 0:
        raise Odd(f"not trading: {quoted(field)} is 0", "halted")
    if not value > 0:
        raise Odd(f"{quoted(field)} is {shown(value)}, below 0")


def _moment_ms(text: str) -> int:
    """An ISO 8601 time as ms since 1970. Raises: Odd."""
    try:
        moment = datetime.fromisoformat(text)
        moment_ms = int(moment.timestamp() * 1_000)
    except (ValueError, OverflowError, OSError):
        raise Odd(f"{quoted('last_updated')} is {shown(text)}, no time") from None
    check_time(moment_ms, "last_updated")
    return moment_ms


def _now_ms(received_ms: int, venue_ms: int | None) -> int:
    return received_ms if venue_ms is None else min(received_ms, venue_ms)
