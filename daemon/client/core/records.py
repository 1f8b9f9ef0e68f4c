"""Messages as rows of a table, which `pandas.DataFrame` and `polars.DataFrame` take as they are. Pure.

rows: list[Record] = []
async for message in client.subscribe("okx_trades"):
    if isinstance(message, Data):
        rows += records(message)
frame = pandas.DataFrame(rows)
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Final, TypeAlias

import msgspec
from msgspec import Raw, UnsetType

from protocol.messages import Data, DepthSnapshot, DepthUpdate, number_fields

Record: TypeAlias = dict[str, object]
"""A row: its columns by name. Each message of one type has the same columns, in one order; what is absent is None."""

Number: TypeAlias = Callable[[str], object]
"""What makes a column's value of a venue's digits: `Decimal` is exact, `float` is quick, `str` leaves them alone."""

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_LEVELS: Final = msgspec.json.Decoder(list[tuple[str, str]]).decode
_DEPTH: Final = ("bids", "asks")


def records(message: Data, number: Number = Decimal) -> list[Record]:
    """The message as rows: one, or of a book in updates one for each level.

    Columns are named as on the wire, but for `channel` (`connector_id`), and times, which are `datetime` in UTC, to the
    millisecond: `timestamp`, `exchange_time` (`exchange_ms`), `received_time`, `start_time`. `data`, the venue's own
    object, is left out. A level has `side` (`bid`, `ask`), `price` and `quantity`; 0 removes it.

    Args:
        message: a data message of a `Client`.
        number: what to make of prices, sizes and volumes.

    Raises:
        ValueError: the levels of a book are not what the contract says.
    """
    row: Record = {"type": message.__struct_config__.tag, "channel": message.connector_id}
    numbers = number_fields(type(message))
    for name in message.__struct_fields__:
        value = getattr(message, name)
        if name in ("connector_id", "data", *(_DEPTH if isinstance(message, DepthSnapshot | DepthUpdate) else ())):
            continue
        if isinstance(value, UnsetType):
            value = None
        elif name in numbers:
            value = number(bytes(value).decode())
        elif name == "timestamp":
            value = datetime.fromisoformat(value)
        if name.endswith("_ms"):
            name, value = (
                f"{name.removesuffix('_ms')}_time",
                None if value is None else _EPOCH + timedelta(milliseconds=value),
            )
        row[name] = value
    if isinstance(message, DepthSnapshot | DepthUpdate):
        return [row | level for level in _levels(message, number)]
    return [row]


def _levels(message: DepthSnapshot | DepthUpdate, number: Number) -> Iterator[Record]:
    for side, raw in (("bid", message.bids), ("ask", message.asks)):
        for price, quantity in _read(raw):
            yield {"side": side, "price": number(price), "quantity": number(quantity)}


def _read(raw: Raw) -> list[tuple[str, str]]:
    try:
        return _LEVELS(raw)
    except msgspec.DecodeError as error:
        raise ValueError(f"no levels of a book: {error}") from None
