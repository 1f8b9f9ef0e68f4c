"""Presets: which channels there are without a section, and how sections change them."""

import msgspec
import pytest

from connectors.venues.registry import OKX, VENUES
from daemon.config.changes import changed_venues
from daemon.config.load import Config, ConfigError, parse
from daemon.config.presets import DEFAULT_CHANNELS, PRESETS
from protocol.channels import Channel
from protocol.kinds import KINDS


def config(text: str = "", **environ: str) -> Config:
    return parse(text, environ, "test.toml")


def presets(*names: str, more: str = "") -> Config:
    return config(f"[catalogue]\npresets = {list(names)}\n{more}")


def error(text: str) -> str:
    with pytest.raises(ConfigError) as refused:
        config(text)
    [line] = refused.value.errors
    return line


def called(read: Config) -> list[str]:
    """The venues that have a connector."""
    by_venue = {name: [channel for channel in read.channels if channel.exchange == name] for name in VENUES}
    return [
        name for name, of_it in by_venue.items() if VENUES[name].build(of_it, read.connectors.of(VENUES[name]), "x")
    ]


def test_venues_are_said_to_be_simulated_only_where_that_is_configured() -> None:
    assert not config().simulated
    assert config("[catalogue]\nsimulated = true").simulated


def test_the_seeds_channels_are_the_default() -> None:
    assert config() == presets("seed")
    assert [channel.name for channel in config().channels] == list(DEFAULT_CHANNELS)


def test_every_venue_that_streams_has_a_preset_with_all_that_it_streams() -> None:
    assert list(PRESETS) == ["seed", *(name for name, venue in VENUES.items() if venue.streamed)]
    for name, venue in VENUES.items():
        if venue.streamed and not venue.is_derived:
            assert [(channel.name, channel.kind.name, channel.instruments) for channel in presets(name).channels] == [
                (f"{name}_{kind}", kind, venue.instruments) for kind in venue.streamed
            ]


def test_a_venue_is_called_only_if_one_of_its_channels_is_there() -> None:
    assert called(presets("okx")) == ["okx"]
    assert called(presets("okx", "seed")) == ["binance", "okx", "coingecko"]
    assert called(presets(more="[channels.x]\nconnector = 'okx'\ninstrument = 'SOL/USDT'")) == ["okx"]


def test_a_section_changes_a_channel_of_a_preset_or_takes_it_away() -> None:
    more = "[channels.okx_ticker]\ninstruments = ['SOL/USDT']\nstale_after_s = 7"
    [changed] = [channel for channel in presets("okx", more=more).channels if channel.name == "okx_ticker"]
    expected = Channel(name="okx_ticker", exchange="okx", kind=KINDS["ticker"], instruments=("SOL/USDT",))
    assert (changed.kind, changed.instruments, changed.stale_after_s) == (expected.kind, expected.instruments, 7.0)
    gone = presets("okx", "seed", more="[channels.okx_ticker]\nenabled = false")
    assert "okx_ticker" not in gone.catalogue()


def test_the_order_of_presets_does_not_matter_nor_does_a_name_that_stands_there_twice() -> None:
    assert presets("seed", "okx", "okx") == presets("okx", "seed")


def test_the_environment_sets_them_too() -> None:
    assert config(TICKERD_CATALOGUE__PRESETS='["okx"]') == presets("okx")


def test_an_unknown_preset_is_named_with_those_that_there_are() -> None:
    line = error('[catalogue]\npresets = ["seed", "bitfinex", "Okx"]')
    assert line.startswith('catalogue.presets: got "bitfinex", "Okx"; allowed: any of "seed", ')
    assert all(f'"{name}"' in line for name in PRESETS)


def test_a_reload_replaces_the_connectors_of_the_venues_that_a_preset_brings() -> None:
    assert list(changed_venues(config(), presets("seed", "okx"))) == ["okx"]
    assert list(changed_venues(presets("seed", "okx"), presets("seed"))) == ["okx"]


# What is made of other channels.


def test_the_consolidated_channel_has_the_instruments_of_the_channels_that_it_is_made_of(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    quoting(monkeypatch)
    more = "[channels.okx_quotes]\nconnector = 'okx'\nkind = 'quotes'\ninstruments = ['BTC/USDT', 'SOL/USDT']"
    read = presets("market", more=more)
    market = read.catalogue()["market_quotes"]
    assert (market.exchange, market.kind.name, market.instruments) == (
        "market",
        "consolidated",
        ("BTC/USDT", "SOL/USDT"),
    )
    assert read.warnings == ()
    some = presets("market", more=f"{more}\n[channels.market_quotes]\ninstrument = 'SOL/USDT'")
    assert some.catalogue()["market_quotes"].instruments == ("SOL/USDT",)


def test_it_says_so_if_there_is_nothing_that_it_could_be_made_of() -> None:
    read = config("[channels.best]\nconnector = 'market'\ninstrument = 'DOGE/BTC'")
    assert read.catalogue()["best"].instruments == ("DOGE/BTC",)
    assert read.warnings == (
        'channels.best has nothing to say of some instruments: no channel of kind "quotes" has DOGE/BTC',
    )


def test_it_has_no_limit_of_its_own_on_silence() -> None:
    line = error("[channels.best]\nconnector = 'market'\ninstrument = 'BTC/USDT'\nstale_after_s = 5")
    assert line.startswith("channels.best.stale_after_s: got 5.0; allowed: no such key, since it is made of channels")


# Keys of some kinds.


def quoting(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a venue have kinds that it streams."""
    kinds = ("ticker", "quotes", "book", "candles")
    object_ = msgspec.structs.replace(OKX, kinds=kinds, intervals=("1m", "1h"))
    monkeypatch.setitem(VENUES, "okx", object_)


def section(kind: str, *keys: str) -> str:
    return "\n".join(["[channels.x]", "connector = 'okx'", f"kind = '{kind}'", "instrument = 'BTC/USDT'", *keys])


def test_a_book_has_levels_and_a_pace_and_candles_have_an_interval(monkeypatch: pytest.MonkeyPatch) -> None:
    quoting(monkeypatch)
    book = config(section("book", "levels = 5", "every_ms = 250")).catalogue()["x"]
    assert (book.levels, book.every_ms) == (5, 250)
    usual = config(section("book")).catalogue()["x"]
    assert (usual.levels, usual.every_ms) == (20, 100)
    assert config(section("candles")).catalogue()["x"].interval == "1m"


def test_candles_of_a_venue_without_those_of_a_minute_are_as_long_as_it_has_them() -> None:
    coinbase = config("[catalogue]\npresets = ['coinbase', 'kraken']").catalogue()
    assert coinbase["coinbase_candles"].interval == "5m"
    assert coinbase["kraken_candles"].interval == "1m"


ONLY = "allowed: no such key, since only channels of kind"


@pytest.mark.parametrize(
    ("kind", "key", "told"),
    [
        ("book", "levels = 0", "channels.x.levels: got 0; allowed: a whole number from 1 to 1000"),
        ("book", "levels = 1001", "channels.x.levels: got 1001; allowed: a whole number from 1 to 1000"),
        ("book", "every_ms = 9", "channels.x.every_ms: got 9; allowed: a whole number from 10 to 60000"),
        (
            "ticker",
            "levels = 5",
            f'channels.x.levels: got 5; {ONLY} "book" have it',
        ),
        (
            "quotes",
            "every_ms = 50",
            f'channels.x.every_ms: got 50; {ONLY} "book" have it',
        ),
        (
            "book",
            "interval = '1m'",
            f'channels.x.interval: got "1m"; {ONLY} "candles" have it',
        ),
    ],
)
def test_a_key_that_does_not_apply_is_refused(kind: str, key: str, told: str, monkeypatch: pytest.MonkeyPatch) -> None:
    quoting(monkeypatch)
    assert error(section(kind, key)).startswith(told)


def test_an_interval_is_one_that_the_venue_has(monkeypatch: pytest.MonkeyPatch) -> None:
    quoting(monkeypatch)
    assert config(section("candles", "interval = '1h'")).catalogue()["x"].interval == "1h"
    line = error(section("candles", "interval = '7m'"))
    assert line == 'channels.x.interval: got "7m"; allowed: "1m", "1h"'


def test_every_venue_that_has_candles_says_of_which_intervals() -> None:
    for venue in VENUES.values():
        assert bool(venue.intervals) == ("candles" in venue.kinds)


def test_a_book_that_is_polled_has_the_levels_of_its_venues_section() -> None:
    line = error("[channels.binance_orderbook]\nlevels = 5")
    assert line.startswith("channels.binance_orderbook.levels: got 5; allowed: no such key")
