"""The checksum of Kraken's books: the documentation's own example, and precisions that nobody told."""

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from connectors.books.book import Book
from connectors.venues.kraken.checksum import Checksum, Precision, find_precision, written
from tests.connectors.venues.kraken.perfect_kraken import PerfectBook, digits

ASKS = (
    "45285.2/0.00100000 45286.4/1.54571953 45286.6/1.54571109 45289.6/1.54560911 45290.2/0.15890660 "
    "45291.8/1.54553491 45294.7/0.04454749 45296.1/0.35380000 45297.5/0.09945542 45299.5/0.18772827"
)
BIDS = (
    "45283.5/0.10000000 45283.4/1.54582015 45282.1/0.10000000 45281.0/0.10000000 45280.3/1.54592586 "
    "45279.0/0.07990000 45277.6/0.03310103 45277.5/0.30000000 45277.3/1.54602737 45276.6/0.15445238"
)
EXAMPLE = 3310070434
PRECISION = Precision(1, 8)


def levels(text: str) -> list[list[str]]:
    return [level.split("/") for level in text.split()]


def book(bids: Sequence[Sequence[str]], asks: Sequence[Sequence[str]]) -> Book:
    made = Book()
    made.replace(bids, asks)
    return made


def example(*, zeros: bool = True) -> Book:
    def cut(side: list[list[str]]) -> list[list[str]]:
        return side if zeros else [[number.rstrip("0").rstrip(".") for number in level] for level in side]

    return book(cut(levels(BIDS)), cut(levels(ASKS)))


def test_the_example_of_the_documentation() -> None:
    assert Checksum(PRECISION).of(example()) == EXAMPLE


def test_zeros_at_the_end_count_though_json_need_not_have_them() -> None:
    assert Checksum(PRECISION).of(example(zeros=False)) == EXAMPLE
    assert Checksum(Precision(1, 9)).of(example()) != EXAMPLE


def test_levels_beyond_the_best_ten_do_not_count() -> None:
    deeper = example()
    deeper.apply([("40000.0", "1.00000000")], [("50000.0", "1.00000000")])
    assert Checksum(PRECISION).of(deeper) == EXAMPLE


def test_it_follows_the_book() -> None:
    checksum, followed = Checksum(PRECISION), example()
    for step in range(300):
        followed.apply([("45283.5", f"0.{step + 1:08d}")], [])
        assert checksum.of(followed) == Checksum(PRECISION).of(followed)


@pytest.mark.parametrize(
    ("number", "places", "digits"),
    [
        ("45285.2", 1, "452852"),
        ("0.00100000", 8, "100000"),
        ("0.001", 8, "100000"),
        ("0.10000000", 4, "1000"),
        ("7", 3, "7000"),
        ("0.00000001", 8, "1"),
        ("0.0123", 2, "0123".lstrip("0")),
    ],
)
def test_how_a_number_is_written(number: str, places: int, digits: str) -> None:
    assert written(number, places) == digits


@pytest.mark.parametrize("zeros", [True, False])
def test_the_precision_is_found_by_a_snapshots_checksum(zeros: bool) -> None:
    assert find_precision(example(zeros=zeros), EXAMPLE) == PRECISION


def test_no_precision_is_found_where_there_is_none() -> None:
    assert find_precision(example(), EXAMPLE + 1) is None
    assert find_precision(Book(), 0) is None


_side = st.dictionaries(st.integers(1, 10**9), st.integers(1, 10**13), max_size=15)


@given(_side, _side, st.integers(0, 10), st.integers(0, 10), st.sampled_from(["full", "short"]))
def test_whatever_the_precision_it_is_found_and_no_other(
    bids: dict[int, int], asks: dict[int, int], price: int, quantity: int, style: str
) -> None:
    perfect = PerfectBook("X/Y")
    perfect.bids, perfect.asks = bids, asks
    made = book(
        [(digits(at, price, style), digits(lots, quantity, style)) for at, lots in bids.items()],
        [(digits(at, price, style), digits(lots, quantity, style)) for at, lots in asks.items()],
    )
    found = find_precision(made, perfect.checksum)
    if bids or asks:
        assert found == Precision(price, quantity)
        assert Checksum(found).of(made) == perfect.checksum
    else:
        assert found is None
