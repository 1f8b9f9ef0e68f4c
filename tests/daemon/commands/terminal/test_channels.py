"""`daemon.commands.terminal.channels`: a line for each channel, in any window."""

from msgspec.structs import replace
from rich.cells import cell_len

from daemon.commands.terminal.channels import listing
from protocol.answers import ChannelReport
from protocol.messages import TopicStatus

STAMP = "2025-12-08T16:30:45.123Z"

SICK = ChannelReport(
    name="okx_trades",
    source="okx",
    kind="trades",
    type="trade",
    instruments=("BTC/USDT", "ETH/USDT", "SOL/USDT", "XRP/USDT"),
    cadence_s=None,
    stale_after_s=None,
    state="down",
    since=STAMP,
    reason="OKX does not serve this address",
    retry_in_s=None,
    age_s=3.0,
)
WELL = replace(SICK, name="coingecko_top", instruments=(), cadence_s=10.0, state="live", reason="")


def test_in_a_terminal_a_channel_is_a_line_and_its_trouble_another() -> None:
    lines = [line.plain for line in listing([SICK, WELL], 100, compact=True)]
    assert [line.split() for line in lines[1:]] == [
        ["okx_trades", "okx", "trades", "BTC/USDT", "ETH/USDT", "SOL/USDT", "+1", "push", "down", "3.0", "s"],
        ["OKX", "does", "not", "serve", "this", "address"],
        ["coingecko_top", "okx", "trades", "whole", "market", "10.0", "s", "live", "3.0", "s"],
    ]


def test_in_any_window_a_channel_and_its_state_are_seen() -> None:
    for width in range(16, 120):
        lines = [line for line in listing([SICK, WELL], width, compact=True) if "serve" not in line.plain]
        assert all(cell_len(line.plain) <= width for line in lines)
        assert "down" in lines[1].plain
        assert lines[1].plain.startswith("okx_tra")


def test_in_a_pipe_nothing_is_left_out() -> None:
    topics = {"BTC/USDT": TopicStatus(state="stale", cause="silent", since=STAMP, reason="silent")}
    partly = replace(WELL, reason="BTC/USDT: silent", topics=topics)
    [_, sick, well] = [line.plain for line in listing([SICK, partly], 100_000, compact=False)]
    assert "BTC/USDT ETH/USDT SOL/USDT XRP/USDT" in sick
    assert "down OKX does not serve this address" in sick
    assert "live BTC/USDT: silent" in well
