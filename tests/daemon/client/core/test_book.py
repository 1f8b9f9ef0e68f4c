"""`daemon.client.Book`: exact against a dictionary of decimals, in both formats, whatever is missing."""

from decimal import Decimal

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import UNSET, Raw

from daemon.client import Book, DepthSnapshot, DepthUpdate
from protocol.messages import Data, Format, decode_message, encode, to_msgpack

STAMP = "2025-12-08T16:30:45.123Z"
Levels = list[tuple[str, str]]

prices = st.sampled_from(("0.1", "0.5", "1.25", "2", "10.50", "99.000000000000000001", "99.000000000000000002"))
levels = st.lists(st.tuples(prices, st.sampled_from(("0", "1", "2.50"))), max_size=4)


def message(
    seq: int,
    prev_seq: int,
    bids: Levels,
    asks: Levels,
    *,
    reset: bool = False,
    through: int | None = None,
    format: Format = Format.JSON,
) -> DepthSnapshot | DepthUpdate:
    """As a client has it: decoded from what the daemon sends."""
    kind = DepthUpdate if through is None and not reset else DepthSnapshot
    made = kind(
        connector_id="x",
        exchange="okx",
        instrument="A/U",
        timestamp=STAMP,
        seq=seq,
        prev_seq=prev_seq,
        received_ms=1,
        data=Raw(b"{}"),
        bids=Raw(msgspec.json.encode(bids)),
        asks=Raw(msgspec.json.encode(asks)),
    )
    if isinstance(made, DepthSnapshot):
        made = msgspec.structs.replace(made, reset=reset, through=UNSET if through is None else through)
    payload = encode(made)
    decoded: Data = decode_message(to_msgpack(payload) if format is Format.MSGPACK else payload, format)  # type: ignore[assignment]
    assert isinstance(decoded, DepthSnapshot | DepthUpdate)
    return decoded


@given(st.lists(st.tuples(levels, levels), max_size=8), st.sampled_from((Format.JSON, Format.MSGPACK)))
def test_it_is_the_venues_book_after_each_change(changes: list[tuple[Levels, Levels]], format: Format) -> None:
    book = Book(format)
    assert book.take(message(1, 0, [("1", "1")], [("2", "1.0")], reset=True, format=format))
    bids, asks = {Decimal(1): ("1", "1")}, {Decimal(2): ("2", "1.0")}
    for seq, (more_bids, more_asks) in enumerate(changes, 2):
        for side, more in ((bids, more_bids), (asks, more_asks)):
            for price, quantity in more:
                name = side.get(Decimal(price), (price, ""))[0]
                side.pop(Decimal(price), None)
                if quantity != "0":
                    side[Decimal(price)] = name, quantity
        assert book.take(message(seq, seq - 1, more_bids, more_asks, format=format))
        assert book.bids == [bids[price] for price in sorted(bids, reverse=True)]
        assert book.asks == [asks[price] for price in sorted(asks)]
        assert book.top(1) == (book.bids[:1], book.asks[:1])


def test_changes_before_the_first_snapshot_are_nothing() -> None:
    book = Book()
    assert not book.take(message(5, 4, [("1", "1")], []))
    assert (book.is_whole, book.bids) == (False, [])


def test_changes_that_a_snapshot_has_already_are_passed_over() -> None:
    book = Book()
    assert book.take(message(9, 7, [("1", "9")], [], through=7))
    assert not book.take(message(7, 6, [("1", "7")], []))
    assert book.take(message(11, 7, [("1", "11")], []))
    assert (book.bids, book.seq) == ([("1", "11")], 11)


def test_where_a_change_is_missing_there_is_no_book_until_a_snapshot_comes() -> None:
    book = Book()
    book.take(message(1, 0, [("1", "1")], [], reset=True))
    assert not book.take(message(4, 3, [("1", "4")], []))
    assert (book.is_whole, book.bids) == (False, [])
    assert not book.take(message(5, 4, [("1", "5")], []))
    assert book.take(message(6, 5, [("2", "6")], [], reset=True))
    assert book.bids == [("2", "6")]


@pytest.mark.parametrize("wrong", [b"[[1,2]]", b'[["1"]]', b'[["x","1"]]'])
def test_what_is_no_level_is_said(wrong: bytes) -> None:
    made = message(1, 0, [], [], reset=True)
    with pytest.raises(ValueError):  # noqa: PT011 - the texts are those of two components
        Book().take(msgspec.structs.replace(made, bids=Raw(wrong)))
