"""`daemon.commands.terminal.choice`: what is subscribed to, and what is said where there is no such thing."""

import pytest

from daemon.commands.terminal.choice import Choice, Wish, chosen
from daemon.commands.terminal.peer import CommandFailed
from protocol.answers import ChannelReport
from protocol.kinds import KINDS

STAMP = "2025-12-08T16:30:45.123Z"


def _report(name: str, kind: str, *instruments: str) -> ChannelReport:
    return ChannelReport(
        name=name,
        source="okx",
        kind=kind,
        type=KINDS[kind].tag,
        view=KINDS[kind].view,
        instruments=instruments,
        cadence_s=None,
        stale_after_s=None,
        state="live",
        since=STAMP,
        reason="",
        retry_in_s=None,
        age_s=None,
    )


REPORTS = (
    _report("bitcoinprice", "ticker", "BTC/USDT"),
    _report("books", "orderbook", "BTC/USDT", "ETH/USDT"),
    _report("okx_trades", "trades", "BTC/USDT", "ETH/USDT"),
    _report("okx_depth", "depth", "BTC/USDT"),
    _report("strange", "trades", "币安人生/USDT"),
    _report("coingecko_top", "top"),
)


@pytest.mark.parametrize(
    ("wish", "choice"),
    [
        (Wish(), Choice(("*",))),
        (Wish(channels=("anything",)), Choice(("anything",))),  # the daemon knows better
        (Wish(instruments=("eth/usdt",)), Choice(("books", "okx_trades"), ("ETH/USDT",))),
        (Wish(instruments=("币安人生/usdt", "币安人生/USDT")), Choice(("strange",), ("币安人生/USDT",))),
        (Wish(kind="trades"), Choice(("okx_trades", "strange"))),
        (Wish(kind="trades", instruments=("BTC/USDT",)), Choice(("okx_trades",), ("BTC/USDT",))),
        # A whole book in updates is better than the best levels of one.
        (Wish(kind="book", instruments=("BTC/USDT",)), Choice(("okx_depth",), ("BTC/USDT",))),
        (Wish(kind="book", instruments=("ETH/USDT",)), Choice(("books",), ("ETH/USDT",))),
        (Wish(kind="book", channels=("okx_depth",)), Choice(("okx_depth",), ("BTC/USDT",))),
        (
            Wish(interval_ms=1000),
            Choice(("bitcoinprice", "books", "coingecko_top"), None, ("okx_trades", "okx_depth", "strange")),
        ),
        (Wish(channels=("okx_trades",), interval_ms=1000), Choice(("okx_trades",))),  # the daemon says why not
    ],
)
def test_what_is_meant(wish: Wish, choice: Choice) -> None:
    assert chosen(wish, REPORTS) == choice


@pytest.mark.parametrize(
    ("wish", "said"),
    [
        (Wish(instruments=("BTC/USTD",)), "--instrument: 'BTC/USTD'; allowed: BTC/USDT, ETH/USDT (the nearest)"),
        (Wish(instruments=("\x1b[2J",)), r"--instrument: '\x1b[2J'; allowed: BTC/USDT, ETH/USDT, 币安人生/USDT"),
        (
            Wish(channels=("okx_trads",), kind="trades"),
            "unknown channel: 'okx_trads'; allowed: okx_trades, okx_depth (the nearest)",
        ),
        (
            Wish(channels=("okx_depth", "books"), instruments=("ETH/USDT",)),
            "--instrument: okx_depth has none of ETH/USDT; it has BTC/USDT",
        ),
        (
            Wish(channels=("bitcoinprice",), kind="trades"),
            "--kind trades: bitcoinprice has none; allowed: channels of kind trades, "
            "as [catalogue] presets of the daemon's configuration has them",
        ),
        (Wish(kind="book"), "--kind book: got 0 instruments; allowed: one --instrument of BTC/USDT, ETH/USDT"),
        (
            Wish(kind="book", instruments=("BTC/USDT", "ETH/USDT")),
            "--kind book: got 2 instruments; allowed: one --instrument of BTC/USDT, ETH/USDT",
        ),
        (
            Wish(kind="trades", interval_ms=1000),
            "--interval: nothing of okx_trades, strange may be left out; allowed: without it",
        ),
    ],
)
def test_what_there_is_not_is_named_with_what_there_is(wish: Wish, said: str) -> None:
    with pytest.raises(CommandFailed) as failed:
        chosen(wish, REPORTS)
    assert str(failed.value).startswith(said)
