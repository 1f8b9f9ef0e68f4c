"""`tickerd check --online`: what the venues' lists say of the configured instruments."""

from pathlib import Path

import pytest
import trio

from connectors.simulator.simulator import Simulator
from daemon.__main__ import main
from daemon.commands.demo import simulator_config

SOON_S = 20.0
UNREACHABLE = "127.0.0.1:9"


def run(file: Path, *arguments: str) -> int:
    """The command beside the simulated venues, at which the file is pointed."""
    status = -1
    given = file.read_text()

    async def beside() -> None:
        nonlocal status
        [venues] = await trio.open_tcp_listeners(0, host="127.0.0.1")
        text = simulator_config("127.0.0.1", venues.socket.getsockname()[1])
        await trio.Path(file).write_text(text + given)
        async with trio.open_nursery() as nursery:
            await nursery.start(Simulator(seed=1).run, [venues])
            with trio.fail_after(SOON_S):
                status = await trio.to_thread.run_sync(main, ["check", *arguments, str(file)])
            nursery.cancel_scope.cancel()

    trio.run(beside)
    return status


def test_all_is_well_where_the_venues_list_all_instruments(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "tickerd.toml"
    file.write_text("")
    assert run(file, "--online") == 0
    assert capfd.readouterr().out == f"{file}: ok, 8 channels\n"


def test_each_instrument_that_is_not_listed_is_named_with_its_channel(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "tickerd.toml"
    file.write_text(
        "[channels.odd]\nconnector = 'okx'\ninstruments = ['BTC/USDT', '币安人生/USDT']\n"
        "[channels.binance_prices]\ninstruments = ['BTC/USDT', 'NONE/USDT']\n"
    )
    assert run(file, "--online") == 78
    assert capfd.readouterr().out.splitlines() == [
        "channels.binance_prices: NONE/USDT: Binance does not list it",
        "channels.odd: 币安人生/USDT: OKX does not list it",
    ]
    file.write_text("[channels.odd]\nconnector = 'okx'\ninstruments = ['BTC/USDT', '币安人生/USDT']\n")
    assert run(file) == 0, "nobody is asked without the switch"


def test_a_venue_that_cannot_be_reached_is_a_warning(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "tickerd.toml"
    file.write_text(
        f"[connectors]\nbinance.base_url = 'http://{UNREACHABLE}'\nokx.url = 'ws://{UNREACHABLE}/ws'\n"
        "coingecko.enabled = false\n"
    )
    assert main(["check", "--online", str(file)]) == 0
    ok, *warnings = capfd.readouterr().out.splitlines()
    assert ok == f"{file}: ok, 5 channels"
    why = f"cannot be reached: all attempts to connect to {UNREACHABLE} failed"
    assert warnings == [f"{file}: {name}'s instruments were not checked: {name} {why}" for name in ("Binance", "OKX")]
