"""A book against plain dicts of Decimals; what is a price and a quantity, and what is not."""

import tracemalloc
from contextlib import suppress
from decimal import Decimal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from connectors.books.book import PLACES, Book, Changes, Ladder, Level, is_zero, key

Model = dict[Decimal, Level]
"""A side, by exact price."""


def spelled(price: Decimal, zeros: int, exponent: bool) -> str:
    """One of the texts of a price."""
    if exponent:
        return f"{price:E}".replace("E+", "e")
    return f"{price:f}" + (("0" * zeros if "." in f"{price:f}" else "." + "0" * zeros) if zeros else "")


PRICES = st.integers(1, 12).map(lambda n: Decimal(n) / 8)
TEXTS = st.builds(spelled, PRICES, st.integers(0, 3), st.booleans())
QUANTITIES = st.sampled_from(["0", "0.000", "0e3", "1", "1.0", "2.5", "1e-8"])
LEVELS = st.lists(st.tuples(TEXTS, QUANTITIES), max_size=12)
QUANTITIES_TOLD = {"0", "1", "1.0", "2.5", "1e-8"}


def model_of(levels: list[tuple[str, str]]) -> Model:
    return {Decimal(price): (price, quantity) for price, quantity in levels if Decimal(quantity)}


class Machine(RuleBasedStateMachine):
    """One side; `worst` is the price beyond which nothing is known, `reader` what a reader of the changes has."""

    def __init__(self) -> None:
        super().__init__()
        self.rising = True
        self.ladder = Ladder(rising=True)
        self.model: Model = {}
        self.reader: dict[str, str] = {}
        self.worst: Decimal | None = None

    def better(self, prices: list[Decimal]) -> list[Decimal]:
        return sorted(prices, reverse=self.rising)

    def read(self, changes: list[Level]) -> None:
        for price, quantity in changes:
            assert quantity in QUANTITIES_TOLD
            if quantity == "0":
                del self.reader[price]
            else:
                self.reader[price] = quantity

    @initialize(levels=LEVELS.filter(bool), rising=st.booleans())
    def begin_cut_off(self, levels: list[tuple[str, str]], rising: bool) -> None:
        self.replace(levels, False, rising)

    @rule(levels=LEVELS, complete=st.booleans(), rising=st.booleans())
    def replace(self, levels: list[tuple[str, str]], complete: bool, rising: bool) -> None:
        if rising != self.rising:
            self.rising, self.ladder = rising, Ladder(rising=rising)
        self.ladder.replace(levels, complete=complete)
        self.model = model_of(levels)
        self.worst = None if complete or not self.model else self.better(list(self.model))[-1]
        self.reader = dict(self.model.values())

    @rule(levels=LEVELS)
    def apply(self, levels: list[tuple[str, str]]) -> None:
        self.read(self.ladder.apply(levels))
        for price, quantity in levels:
            at = Decimal(price)
            if self.worst is not None and (at < self.worst if self.rising else at > self.worst):
                continue
            if not Decimal(quantity):
                self.model.pop(at, None)
            elif at in self.model:
                self.model[at] = (self.model[at][0], quantity)
            else:
                self.model[at] = (price, quantity)

    @rule(depth=st.integers(0, 8))
    def truncate(self, depth: int) -> None:
        self.read(self.ladder.truncate(depth))
        self.model = {at: self.model[at] for at in self.better(list(self.model))[:depth]}

    @rule(levels=LEVELS)
    def apply_twice(self, levels: list[tuple[str, str]]) -> None:
        once = {Decimal(price): (price, quantity) for price, quantity in levels}
        self.apply(list(once.values()))
        assert self.ladder.apply(list(once.values())) == [], "what is so already is no change"

    @invariant()
    def is_the_model(self) -> None:
        best = [self.model[at] for at in self.better(list(self.model))]
        assert len(self.ladder) == len(best)
        for levels in (0, 1, 3, len(best), len(best) + 5):
            assert self.ladder.top(levels) == best[:levels]
        assert self.ladder.best == (best[0] if best else None)
        assert self.ladder.best_key == (int(Decimal(best[0][0]) * 10**PLACES) if best else None)
        assert self.reader == dict(best)


TestALadder = Machine.TestCase
TestALadder.settings = settings(max_examples=40, stateful_step_count=25)


@given(LEVELS, LEVELS, LEVELS, LEVELS, st.integers(0, 5))
def test_a_book_is_two_ladders(
    bids: list[tuple[str, str]],
    asks: list[tuple[str, str]],
    more: list[tuple[str, str]],
    further: list[tuple[str, str]],
    depth: int,
) -> None:
    book, one, other = Book(), Ladder(rising=True), Ladder(rising=False)
    book.replace(bids, asks, complete=False)
    one.replace(bids, complete=False)
    other.replace(asks, complete=False)
    changes = book.apply(more, further)
    assert changes == Changes(one.apply(more), other.apply(further))
    assert bool(changes) == bool(changes.bids or changes.asks)
    assert book.truncate(depth) == Changes(one.truncate(depth), other.truncate(depth))
    assert book.top(3) == (one.top(3), other.top(3))
    top = book.top(1)
    crossed = bool(top[0] and top[1]) and Decimal(top[0][0][0]) >= Decimal(top[1][0][0])
    assert book.is_crossed == crossed


def test_a_level_keeps_the_spelling_by_which_it_came_until_it_is_gone() -> None:
    ladder = Ladder(rising=True)
    assert ladder.apply([("0.10", "1")]) == [("0.10", "1")]
    assert ladder.apply([("0.1", "2")]) == [("0.10", "2")]
    assert ladder.apply([("1e-1", "0.00")]) == [("0.10", "0")]
    assert ladder.apply([("0.100", "3")]) == [("0.100", "3")]


def test_what_lies_beyond_a_snapshot_that_was_cut_off_is_not_taken() -> None:
    for rising, beyond in ((True, "0.9"), (False, "2.1")):
        ladder = Ladder(rising=rising)
        ladder.replace([("1", "1"), ("2", "1")], complete=False)
        assert ladder.apply([(beyond, "5"), (beyond, "0"), ("1.5", "1")]) == [("1.5", "1")]


def test_a_message_that_cannot_be_read_replaces_nothing_of_its_side() -> None:
    ladder = Ladder(rising=True)
    ladder.replace([("1", "1")])
    with pytest.raises(ValueError, match="not a price: 'x'"):
        ladder.replace([("2", "1"), ("x", "1")])
    assert ladder.top(9) == [("1", "1")]
    with pytest.raises(ValueError, match="not a quantity: ''"):
        ladder.apply([("2", "1"), ("3", "")])
    assert ladder.top(9) == [("2", "1"), ("1", "1")]


BAD_NUMBERS = [
    *(
        "",
        " ",
        ".",
        "5.",
        ".5",
        "05",
        "00.5",
        "+5",
        "1 ",
        " 1",
        "1_0",
        "1,5",
        "0x1",
        "1e",
        "e1",
        "1e400",
        "1.2.3",
        "--1",
    ),
    *("NaN", "nan", "Infinity", "-Infinity", "inf", "٣", "\uff15", "1\n", "9" * 31, "0." + "1" * 31, "1e999999999"),
]


@pytest.mark.parametrize(
    "digits", [*BAD_NUMBERS, "0", "0.0", "-0", "-1", "0e5", "1e-19", "0." + "0" * 18 + "1", "1e40"]
)
def test_what_is_no_price(digits: str) -> None:
    with pytest.raises(ValueError, match="not a price: "):
        key(digits)


@pytest.mark.parametrize("digits", [*BAD_NUMBERS, "0.0.0", "00", "-1", "-0.5", "-1e-9"])
def test_what_is_no_quantity(digits: str) -> None:
    with pytest.raises(ValueError, match="not a quantity: "):
        is_zero(digits)


@pytest.mark.parametrize(
    ("digits", "whole"),
    [
        ("1", 10**18),
        ("0.000000000000000001", 1),
        ("1e-18", 1),
        ("1E2", 10**20),
        ("83805.10", 838051 * 10**17),
        ("1.0000000000000000000000", 10**18),
        ("9" * 30 + "." + "9" * 18, 10**48 - 1),
    ],
)
def test_a_price_is_exact(digits: str, whole: int) -> None:
    assert key(digits) == whole


@given(st.integers(1, 10**48 - 1), st.integers(0, 12))
def test_every_spelling_of_a_price_is_one_key(whole: int, zeros: int) -> None:
    text = f"{whole // 10**18}.{whole % 10**18:018d}"
    assert key(text) == whole
    assert key(text + "0" * zeros) == whole
    if (plain := text.rstrip("0").rstrip(".")) != "0":
        assert key(plain) == whole


@given(st.text() | st.from_regex(r"\A[-+0-9.eE_ ]{1,12}\Z"))
def test_whatever_the_text_it_is_a_number_or_a_ValueError(text: str) -> None:
    with suppress(ValueError):
        assert key(text) == Decimal(text) * 10**18
    with suppress(ValueError):
        assert is_zero(text) == (Decimal(text) == 0)


@pytest.mark.parametrize("bad", ["", "1,2", "1,", ",", "0,0", "-1", "x", "01"])
@pytest.mark.parametrize("place", [0, 1, 2])
def test_a_bad_quantity_is_found_wherever_it_stands(bad: str, place: int) -> None:
    levels = [("1", "5"), ("2", "0"), ("3", "0.10")]
    levels[place] = (levels[place][0], bad)
    ladder = Ladder(rising=True)
    with pytest.raises(ValueError, match="not a quantity: "):
        ladder.apply(levels)
    assert len(ladder) == len([level for level in levels[:place] if level[1] != "0"])


def test_prices_that_have_gone_by_take_no_more_and_more_memory() -> None:
    ladder = Ladder(rising=True)

    def walk(begin: int) -> None:
        for step in range(begin, begin + 5_000):
            ladder.apply([(f"{step}.5", "1"), (f"{step - 5}.5", "0")])

    walk(10)
    tracemalloc.start()
    try:
        walk(5_010)
        grown, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert grown < 100_000
    assert len(ladder) == 5
