"""How the page writes numbers: no zeros at the end, no exponent, and no word of JavaScript's for what is no number."""

import json
import random
import re
import shutil
import subprocess
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

HERE = Path(__file__).parent
NUMBERS = Path(__file__).parents[3] / "daemon" / "routes" / "web" / "numbers.js"


def made(
    said: list[Any] | None = None,
    *,
    spans: list[Any] | None = None,
    pairs: list[Any] | None = None,
    ages: list[Any] | None = None,
) -> Any:
    node = shutil.which("node")
    if node is None:
        pytest.skip("no node here; Debian and Ubuntu have it: apt-get install nodejs")
    given = json.dumps({"said": said or [], "spans": spans or [], "pairs": pairs or [], "ages": ages or []})
    command = [node, str(HERE / "numbers.mjs"), str(NUMBERS)]
    ran = subprocess.run(command, input=given, capture_output=True, text=True, timeout=60)
    assert ran.returncode == 0, ran.stderr
    return json.loads(ran.stdout)


DIGITS = {
    "0": ("0", 0),
    "0.00": ("0", 0),
    "100": ("100", 0),
    "100.00": ("100", 0),
    "42150": ("42,150", 0),
    "42150.50": ("42,150.5", 1),
    "97057.04000000": ("97,057.04", 2),
    "97065.3": ("97,065.3", 1),
    "1000000": ("1,000,000", 0),
    "1000": ("1,000", 0),
    "1e-8": ("0.00000001", 8),
    "1E-8": ("0.00000001", 8),
    "1.50e-7": ("0.00000015", 8),
    "12.5e1": ("125", 0),
    "1e21": ("1,000,000,000,000,000,000,000", 0),
    "1e+21": ("1,000,000,000,000,000,000,000", 0),
    "0.00001234": ("0.00001234", 8),
    "-42150.50": ("\u221242,150.5", 1),
    "-1e-8": ("\u22120.00000001", 8),
    "12345678901234567": ("12,345,678,901,234,567", 0),
    "0.12345678901234567": ("0.12345678901234567", 17),
    "10.010": ("10.01", 2),
    "1e400": ("1e400", 0),
    "": ("", 0),
    "n/a": ("n/a", 0),
    "1.0.0": ("1.0.0", 0),
}


def test_every_digit_that_says_something_is_there_and_no_zero_at_the_end() -> None:
    found = made(list(DIGITS))
    assert dict(zip(DIGITS, zip(found["plain"], found["decimals"], strict=True), strict=True)) == DIGITS


def test_points_stand_below_each_other_in_a_column() -> None:
    said = ["1", "1.5", "1.50", "1.123", "1.12345", "", "n/a"]
    digit, point = "\u2007", "\u2008"
    assert made(said)["inColumn"] == [
        f"1{point}{digit * 3}",
        f"1.5{digit * 2}",
        f"1.5{digit * 2}",
        "1.123",
        "1.12345",
        "",
        "n/a",
    ]


def test_a_difference_has_no_more_decimals_than_what_it_is_of() -> None:
    pairs = [("97057.05000000", "97057.03000000"), ("0.3", "0.1"), ("5", "5"), ("1e-8", "0"), ("x", "1")]
    assert made(pairs=pairs)["difference"] == ["0.02", "0.2", "0", "0.00000001", "\u2013"]


def test_numbers_are_as_their_text_and_what_is_neither_is_nothing() -> None:
    odd: list[Any] = [None, True, False, [], {}, [1], {"usd": 1}]
    assert made([1e-8, 42150, 1e21, -5, 0, *odd])["grouped"] == [
        "0.00000001",
        "42,150",
        "1,000,000,000,000,000,000,000",
        "\u22125",
        "0",
        *("" for _ in odd),
    ]


def test_a_long_text_is_cut() -> None:
    assert made(["9" * 5_000])["grouped"] == ["9" * 66 + "\u2026"]


def test_a_number_stays_the_number_that_it_is() -> None:
    dice = random.Random(24)
    numbers = [dice.uniform(-1, 1) * 10.0 ** dice.randint(-30, 30) for _ in range(500)]
    said = [repr(number) for number in numbers]
    for text, shown in zip(said, made(said)["grouped"], strict=True):
        assert Decimal(shown.replace(",", "").replace("\u2212", "-")) == Decimal(text)
        assert re.fullmatch(r"\u2212?\d{1,3}(,\d{3})*(\.\d+)?", shown)


@pytest.mark.parametrize(
    ("said", "shown", "move"),
    [
        ("2.45", "+2.45", "up"),
        ("-3.604", "\u22123.604", "down"),
        ("1.23456", "+1.23", "up"),
        ("2.50", "+2.5", "up"),
        ("-0.00004", "0", None),
        ("0.00004", "0", None),
        ("1e-8", "0", None),
        ("0", "0", None),
        ("-0.00", "0", None),
        ("12345.67", "+12,345.67", "up"),
        ("1e21", "+1,000,000,000,000,000,000,000", "up"),
        (100, "+100", "up"),
    ],
)
def test_a_change_has_the_sign_and_colour_of_what_is_shown(said: Any, shown: str, move: str | None) -> None:
    [percent] = made([said])["percent"]
    assert (percent["text"], percent["move"]) == (f"{shown}\u2009%", move)


@pytest.mark.parametrize("said", ["", "NaN", "Infinity", "-Infinity", "1e400", "null", "x", None, [], {}, True])
def test_a_change_that_is_no_number_is_not_shown(said: Any) -> None:
    assert made([said])["percent"] == [{"text": "", "full": None, "move": None}]


def test_a_spread_is_only_said_where_there_is_one() -> None:
    pairs = [(100, 101), (100, 100), (0, 5), (0, 0), (-5, 5), (1e-300, 1e300)]
    none = "\u2013"
    assert made(pairs=pairs)["spread"] == ["1\u2009%", "0\u2009%", none, none, none, none]


SPANS = [
    *((0.0, 10.0**power, 4) for power in range(-12, 22)),
    *((42_150.0, 42_150.0 + 10.0**power, 4) for power in range(-6, 6)),
    (-5.0, 5.0, 4),
    (12_345_678_901_234_568.0, 12_345_678_901_234_570.0, 4),
]


def test_ticks_have_texts_of_their_own_that_say_what_they_are() -> None:
    for span, ticks in zip(SPANS, made(spans=SPANS)["ticks"], strict=True):
        values = [value for value, _ in ticks]
        texts = [text for _, text in ticks]
        assert all(span[0] <= value <= span[1] * (1 + 1e-12) for value in values), (span, ticks)
        for value, text in ticks:
            assert re.fullmatch(r"\u2212?\d{1,3}(,\d{3})*(\.\d+)?", text), (span, text)
            shown = float(text.replace(",", "").replace("\u2212", "-"))
            assert shown == pytest.approx(value, rel=1e-9, abs=(span[1] - span[0]) * 1e-9), (span, text)
        assert len(set(texts)) == len(set(values)), (span, ticks)


def test_no_age_is_not_a_number() -> None:
    ages = [None, -5, 0, 999, 1000, 59_999, 60_000, 3_599_999, 3_600_000, 360_000_000]
    assert [age.replace("\u2009", " ") for age in made(ages=ages)["age"]] == [
        "\u2013",
        "<1 s",
        "<1 s",
        "<1 s",
        "1 s",
        "59 s",
        "1 min 00 s",
        "59 min 59 s",
        "1 h 00 min",
        "100 h 00 min",
    ]
