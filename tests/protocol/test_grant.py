import pytest

from protocol.grant import ANYONE, Grant


@pytest.mark.parametrize(
    ("patterns", "covered"),
    [
        (("*",), ["binance_prices", "binance_24hr", "ethprice"]),
        (("binance_*",), ["binance_prices", "binance_24hr"]),
        (("binance_prices", "eth*"), ["binance_prices", "ethprice"]),
        (("???price",), ["ethprice"]),
        (("BINANCE_*", "price"), []),
        ((), []),
    ],
)
def test_a_grant_covers_what_its_patterns_match(patterns: tuple[str, ...], covered: list[str]) -> None:
    grant = Grant("bot", patterns)
    assert [name for name in ("binance_prices", "binance_24hr", "ethprice") if grant.covers(name)] == covered


def test_without_tokens_everybody_may_have_everything() -> None:
    assert (ANYONE.name, ANYONE.covers("anything")) == ("", True)


def test_the_digest_tells_two_of_one_name_apart_and_is_not_shown() -> None:
    first, second = Grant("bot", mark=b"first"), Grant("bot", mark=b"second")
    assert first != second
    assert repr(first) == repr(second) == "Grant('bot', ('*',))"
