"""Which channels the sections of a configuration make, together with the defaults."""

import pytest

from daemon.config.load import Config, ConfigError, parse
from daemon.config.presets import DEFAULT_CHANNELS
from protocol.channels import Channel
from protocol.kinds import KINDS

TEN = DEFAULT_CHANNELS["binance_prices"].instruments or ()


def config(text: str) -> Config:
    return parse(text, {}, "test.toml")


def channel(
    name: str, exchange: str, kind: str, type_: str, instruments: tuple[str, ...], cadence_s: float | None
) -> Channel:
    assert KINDS[kind].tag == type_
    return Channel(name=name, exchange=exchange, kind=KINDS[kind], instruments=instruments, cadence_s=cadence_s)


def test_users_add_channels() -> None:
    text = (
        "[channels.solprice]\nconnector = 'okx'\ninstrument = 'SOL/USDT'\n"
        "[channels.alts]\nconnector = 'binance'\nkind = 'prices'\ninstruments = ['A/B', '1C/D']\ncadence_s = 3\n"
    )
    catalogue = config(text).catalogue()
    assert catalogue.names == (*DEFAULT_CHANNELS, "solprice", "alts")
    assert catalogue["solprice"] == channel("solprice", "okx", "ticker", "price_update", ("SOL/USDT",), None)
    assert catalogue["alts"] == channel("alts", "binance", "prices", "price_update", ("A/B", "1C/D"), 3.0)


def test_a_section_for_a_default_changes_only_what_it_names() -> None:
    changed = config("[channels.binance_prices]\ncadence_s = 2").catalogue()
    assert changed["binance_prices"] == channel("binance_prices", "binance", "prices", "price_update", TEN, 2.0)
    changed = config("[channels.binance_prices]\ninstrument = 'A/B'").catalogue()
    assert changed["binance_prices"].instruments == ("A/B",)
    changed = config("[channels.bitcoinprice]\ninstruments = ['A/B', 'C/D']").catalogue()
    assert changed["bitcoinprice"].instruments == ("A/B", "C/D")
    assert changed.names == tuple(DEFAULT_CHANNELS)


def test_a_default_can_move_to_another_venue() -> None:
    text = "[channels.ethprice]\nconnector = 'binance'\nkind = 'prices'\ninstrument = 'ETH/USDT'"
    moved = config(text).catalogue()["ethprice"]
    assert (moved.exchange, moved.kind.name, moved.cadence_s) == ("binance", "prices", 10.0)


def test_a_disabled_channel_is_gone_and_need_not_be_complete() -> None:
    text = "[channels.ethprice]\nenabled = false\n[channels.later]\nenabled = false\n"
    assert set(DEFAULT_CHANNELS) - set(config(text).catalogue().names) == {"ethprice"}


def test_the_channels_of_a_disabled_connector_are_gone() -> None:
    names = config("connectors.binance.enabled = false").catalogue().names
    assert names == tuple(name for name in DEFAULT_CHANNELS if not name.startswith("binance"))


def test_no_channel_at_all_is_a_mistake() -> None:
    text = "".join(f"[connectors.{name}]\nenabled = false\n" for name in ("binance", "okx", "coingecko"))
    with pytest.raises(ConfigError, match=r"^channels: none is left to serve"):
        config(text)
