"""The configuration: defaults, files, environment, and what each mistake is told."""

import json
import re
import tomllib
from pathlib import Path
from typing import Any

import msgspec
import pytest

from connectors.venues.registry import VENUES
from daemon.config import reader
from daemon.config.load import IGNORED_VARIABLES, Config, ConfigError, load, parse
from daemon.config.presets import DEFAULT_CHANNELS
from daemon.config.settings import File
from protocol.channels import Channel
from protocol.kinds import KINDS

ROOT = Path(__file__).resolve().parents[3]
EXAMPLE = ROOT / "systemd" / "tickerd.toml"

TEN = tuple(f"{base}/USDT" for base in ["BTC", "ETH", "BNB", "SOL", "XRP", "ADA", "DOGE", "AVAX", "LINK", "DOT"])


def config(text: str = "", **environ: str) -> Config:
    return parse(text, environ, "test.toml")


def errors(text: str = "", **environ: str) -> tuple[str, ...]:
    with pytest.raises(ConfigError) as refused:
        config(text, **environ)
    return refused.value.errors


def error(text: str = "", **environ: str) -> str:
    [line] = errors(text, **environ)
    return line


def test_without_a_word_it_is_the_eight_channels_on_loopback_port_8000() -> None:
    default = config()
    assert default.server.hosts == ("127.0.0.1", "::1")
    assert default.server.port == 8000
    assert default.channels == (
        channel("binance_prices", "binance", "prices", "price_update", TEN, 10.0),
        channel("binance_orderbook", "binance", "orderbook", "orderbook_update", (TEN[0], TEN[1], "SOL/USDT"), 10.0),
        channel("binance_24hr", "binance", "24hr", "ticker_update", TEN, 10.0),
        channel("coingecko_global", "coingecko", "global", "market_update", (), 10.0),
        channel("coingecko_top", "coingecko", "top", "top_update", (), 10.0),
        channel("coingecko_trending", "coingecko", "trending", "trending_update", (), 10.0),
        channel("bitcoinprice", "okx", "ticker", "price_update", ("BTC/USDT",), None),
        channel("ethprice", "okx", "ticker", "price_update", ("ETH/USDT",), None),
    )
    assert tuple(default.catalogue()) == default.channels
    assert default.connectors.of(VENUES["okx"]).url == "wss://ws.okx.com/ws/v5/public"


def channel(
    name: str, exchange: str, kind: str, type_: str, instruments: tuple[str, ...], cadence_s: float | None
) -> Channel:
    assert KINDS[kind].tag == type_
    return Channel(name=name, exchange=exchange, kind=KINDS[kind], instruments=instruments, cadence_s=cadence_s)


@pytest.mark.parametrize(
    "instrument",
    ["币安人生/USDT", "БИТ/РУБ", "BTC/円", "हिन्दी/INR", "ΑΒΓ/USDT", "1000000MOG/USDT", "🚀/USDT", "ÉTÉ/EUR"],
)
def test_an_instrument_may_be_of_any_script(instrument: str) -> None:
    read = config(f'[channels.x]\nconnector = "okx"\ninstruments = ["{instrument}"]')
    assert {channel.name: channel.instruments for channel in read.channels}["x"] == (instrument,)


@pytest.mark.parametrize(
    "instrument",
    [
        *(
            "币安 人生/USDT",
            "币安人生",
            "/币",
            "币/",
            "a币/USDT",
            "币/U/T",
            "币\u200b/USDT",
            "币\u202e/USDT",
            "币\ufeff/USDT",
        ),
        *("币\uff0fUSDT", "币-安/USDT", "币" * 21 + "/USDT", "币\u3000/USDT", "币\u00a0/USDT", "\u0007/USDT"),
    ],
)
def test_one_that_could_be_taken_for_another_is_refused(instrument: str) -> None:
    with pytest.raises(ConfigError, match="BASE/QUOTE"):
        config(f"[channels.x]\nconnector = 'okx'\ninstruments = [{json.dumps(instrument)}]")


def test_the_limits_are_those_of_the_wire_contract() -> None:
    limits = config().limits
    assert limits.message_bytes == 64 * 1024
    assert (limits.commands_per_s, limits.commands_burst, limits.channels_per_command) == (50, 100, 64)
    assert (limits.clients, limits.clients_per_address) == (10_000, 100)
    assert (limits.handshake_s, limits.ping_every_s, limits.silent_after_s) == (10, 20, 40)
    assert (limits.write_deadline_s, limits.errors_in_a_row, limits.grace_s) == (30, 20, 10)


# The example file.


def switched_on(text: str) -> str:
    """The file with every key in force: what stands directly behind a `#` is no prose."""
    lines = text.splitlines()
    return "\n".join(line[1:] if line[:1] == "#" and line[1:2] not in ("", " ") else line for line in lines)


def leaves(tree: dict[str, Any], path: str = "") -> dict[str, object]:
    found: dict[str, object] = {}
    for key, value in tree.items():
        if isinstance(value, dict):
            found |= leaves(value, f"{path}{key}.")
        else:
            found[f"{path}{key}"] = value
    return found


def defaults() -> dict[str, object]:
    """Every key with its default, as the Structs have them."""
    # By way of JSON, which knows lists only, as TOML does.
    expected = leaves(msgspec.json.decode(msgspec.json.encode(File())))
    served = {channel.name: channel.cadence_s for channel in config().channels}
    for name, section in DEFAULT_CHANNELS.items():
        keys = msgspec.json.decode(msgspec.json.encode(section)) | {"cadence_s": served[name], "stale_after_s": 0.0}
        expected |= {f"channels.{name}.{key}": value for key, value in keys.items() if value is not None}
    return expected


def test_the_example_as_it_stands_changes_nothing() -> None:
    assert load(EXAMPLE, {}) == config()


def test_the_example_names_every_key_with_its_default_and_no_other() -> None:
    text = switched_on(EXAMPLE.read_text())
    assert leaves(tomllib.loads(text)) == defaults()
    assert config(text) == config()


def test_every_key_of_the_schema_is_among_the_examples() -> None:
    named = {key.replace(f"channels.{name}.", "channels.NAME.") for name in DEFAULT_CHANNELS for key in defaults()}
    examples = leaves(tomllib.loads(prose_examples()))
    shown = {re.sub(r"^(tokens|channels)\.\w+\.", r"\1.NAME.", key) for key in examples}
    assert set(reader.keys(File)) <= named | shown


def prose_examples() -> str:
    """What the prose shows of tables that are not there without being asked for."""
    lines = EXAMPLE.read_text().splitlines()
    return "\n".join(line.removeprefix("#     ") for line in lines if line.startswith("#     "))


def test_the_examples_of_the_prose_work() -> None:
    read = config(prose_examples())
    assert read.catalogue()["solprice"].instruments == ("SOL/USDT",)
    assert (read.catalogue()["solbook"].levels, read.catalogue()["solbook"].every_ms) == (10, 250)
    assert read.catalogue()["solcandles"].interval == "5m"
    assert read.tokens["partner"].channels == ("binance_*", "ethprice")


# Files and environment.


def test_how_long_a_channel_may_be_silent_can_be_set_and_0_leaves_it_to_the_daemon() -> None:
    assert config("channels.ethprice.stale_after_s = 90").catalogue()["ethprice"].stale_after_s == 90.0
    assert config("channels.ethprice.stale_after_s = 0") == config()
    assert config().catalogue()["binance_prices"].stale_after_s is None


def test_a_file_sets_what_it_names_and_nothing_else(tmp_path: Path) -> None:
    file = tmp_path / "tickerd.toml"
    file.write_text("[server]\nport = 9000\nhost = ['127.0.0.1', '::']\n[limits]\ngrace_s = 3\n")
    read = load(file, {})
    assert (read.server.port, read.server.hosts, read.limits.grace_s) == (9000, ("127.0.0.1", "::"), 3.0)
    assert msgspec.structs.replace(read, server=config().server, limits=config().limits) == config()


def test_no_file_is_the_environment_alone() -> None:
    assert load(None, {"TICKERD_SERVER__PORT": "1"}) == config("server.port = 1")


def test_an_option_wins_over_the_environment_and_is_checked_like_a_key(tmp_path: Path) -> None:
    file = tmp_path / "tickerd.toml"
    file.write_text("[server]\nhost = '127.0.0.1'\nport = 9000\n")
    made = load(file, {"TICKERD_SERVER__PORT": "9001"}, {"server.port": 9002})
    assert (made.server.hosts, made.server.port) == (("127.0.0.1",), 9002)
    assert load(None, {}, {"server.host": "::1"}).server.hosts == ("::1",)
    with pytest.raises(ConfigError) as refused:
        load(file, {"TICKERD_SERVER__HOST": "::1"}, {"server.host": "nowhere", "server.port": 70000})
    host, port = sorted(refused.value.errors)
    assert host.startswith('server.host (from --host): got "nowhere"; allowed: "localhost", an IP address')
    assert port == "server.port (from --port): got 70000; allowed: a whole number from 0 to 65535"


def test_the_environment_wins_over_the_file_in_any_case_of_letters() -> None:
    assert config("server.port = 1", tickerd_Server__PORT="2").server.port == 2


@pytest.mark.parametrize(
    ("variable", "value", "toml"),
    [
        ("TICKERD_SERVER__PORT", "9000", "server.port = 9000"),
        ("TICKERD_SERVER__HOST", "::1", 'server.host = "::1"'),
        ("TICKERD_SERVER__HOST", '"::1"', 'server.host = "::1"'),
        ("TICKERD_SERVER__HOST", '["::1", "127.0.0.1"]', 'server.host = ["::1", "127.0.0.1"]'),
        ("TICKERD_LIMITS__GRACE_S", "2.5", "limits.grace_s = 2.5"),
        ("TICKERD_LIMITS__GRACE_S", "2", "limits.grace_s = 2.0"),
        ("TICKERD_CONNECTORS__OKX__ENABLED", "false", "connectors.okx.enabled = false"),
        ("TICKERD_LOG__LEVEL", "debug", 'log.level = "debug"'),
        (
            "TICKERD_CHANNELS__SOLPRICE__INSTRUMENT",
            "SOL/USDT",
            "channels.solprice.connector = 'okx'\nchannels.solprice.instrument = 'SOL/USDT'",
        ),
    ],
)
def test_a_variable_says_what_the_key_in_the_file_says(variable: str, value: str, toml: str) -> None:
    solprice = "[channels.solprice]\nconnector = 'okx'\n" if "SOLPRICE" in variable else ""
    assert config(solprice, **{variable: value}) == config(toml)


def test_a_value_that_would_be_a_number_is_text_where_text_is_wanted() -> None:
    variables = {"TICKERD_CONNECTORS__COINGECKO__API_KEY": "12345", "TICKERD_CONNECTORS__COINGECKO__PLAN": "demo"}
    assert config(**variables).connectors.of(VENUES["coingecko"]).api_key == "12345"


def test_a_value_cannot_smuggle_in_other_keys() -> None:
    assert error(TICKERD_SERVER__PORT="1\nvalue2 = 2").startswith("server.port (from TICKERD_SERVER__PORT): got ")


def test_other_programs_variables_and_those_of_the_tests_are_left_alone() -> None:
    assert config(TICKERDX="1", PATH="/bin", TICKERD_RECORDED="payloads") == config()


@pytest.mark.parametrize(
    ("variable", "nearest"),
    [
        ("TICKERD_SERVER_PORT", "TICKERD_SERVER__PORT"),
        ("TICKERD_PORT", "TICKERD_SERVER__PORT"),
        ("TICKERD_SERVER__PROT", "TICKERD_SERVER__PORT"),
        ("TICKERD_LIMITS__GRACE", "TICKERD_LIMITS__GRACE_S"),
        ("tickerd_channels__solprice__instrumnt", "TICKERD_CHANNELS__SOLPRICE__INSTRUMENT"),
        ("TICKERD_SERVER__PORT__X", "TICKERD_SERVER__PORT"),
        ("TICKERD_CONNECTORS__COINGECKO__APIKEY", "TICKERD_CONNECTORS__COINGECKO__API_KEY"),
    ],
)
def test_an_unknown_variable_is_refused_with_the_nearest_name(variable: str, nearest: str) -> None:
    assert error(**{variable: "s3cret"}) == f"{variable}: unknown variable; nearest is {nearest}"


def test_a_variable_like_no_other_is_told_the_form() -> None:
    assert error(TICKERD_QQQQ="1") == "TICKERD_QQQQ: unknown variable; allowed: TICKERD_SECTION__KEY"


def test_a_section_is_no_variable() -> None:
    assert "unknown variable" in error(TICKERD_SERVER="1")
    assert "unknown variable" in error(TICKERD_CHANNELS__SOLPRICE="1")


def test_syntax_is_refused_with_file_and_line(tmp_path: Path) -> None:
    file = tmp_path / "broken.toml"
    file.write_text("[server]\nport = \n")
    with pytest.raises(ConfigError) as refused:
        load(file, {})
    [line] = refused.value.errors
    assert line.startswith(f"{file}: not TOML: ")
    assert "line 2" in line


@pytest.mark.parametrize("content", [None, b"\xff\xfe", "folder"])
def test_a_file_that_cannot_be_read_is_named(tmp_path: Path, content: bytes | str | None) -> None:
    file = tmp_path / "some.toml"
    if content == "folder":
        file.mkdir()
    elif isinstance(content, bytes):
        file.write_bytes(content)
    with pytest.raises(ConfigError, match="cannot be read") as refused:
        load(file, {})
    [line] = refused.value.errors
    assert line.startswith(f"{file}: ")


def test_a_file_nested_beyond_reason_is_refused() -> None:
    assert error("a = " + "[" * 5000).startswith("test.toml: not TOML")
    assert error(TICKERD_SERVER__PORT="[" * 5000).startswith("server.port (from TICKERD_SERVER__PORT): got ")


# Mistakes.

BINANCE = "[channels.x]\nconnector = 'binance'\n"
OKX = "[channels.x]\nconnector = 'okx'\n"
COINGECKO = "[channels.x]\nconnector = 'coingecko'\n"

BAD = [
    ("server.port = 70000", "server.port", "70000", "a whole number from 0 to 65535"),
    ("server.port = -1", "server.port", "-1", "from 0 to 65535"),
    ("server.port = true", "server.port", "true", "from 0 to 65535"),
    ("server.port = 80.0", "server.port", "80.0", "a whole number"),
    ("server.port = '80'", "server.port", '"80"', "a whole number"),
    ("server.port = 2024-01-01", "server.port", "2024-01-01", "a whole number"),
    (f"server.port = {10**100}", "server.port", "a number of 333 bits", "a whole number"),
    ("server.host = 'example.org'", "server.host", '"example.org"', '"localhost", an IP address'),
    ("server.host = []", "server.host", "[]", "an IP address"),
    ("server.host = ['::1', 1]", "server.host", '["::1", 1]', "an IP address"),
    ("server.host = '[::1]'", "server.host", '"[::1]"', "an IP address"),
    ("server.backlog = 0", "server.backlog", "0", "from 1 to 65535"),
    ("server.certificate = '/dev/null/no'\nserver.key = ''", "server.key", '""', "go together"),
    ("server.key = 'x'", "server.certificate", '""', "go together"),
    ("server.origins = ['example.org']", "server.origins", '"example.org"', "SCHEME://HOST[:PORT]"),
    ("server.origins = ['https://a/']", "server.origins", '"https://a/"', "SCHEME://HOST[:PORT]"),
    ("server.origins = '*'", "server.origins", '"*"', "a list"),
    ("server.trusted_proxies = ['10.0.0.0/99']", "server.trusted_proxies", '"10.0.0.0/99"', "10.0.0.0/8"),
    ("server = 8000", "server", "8000", "a table"),
    ("limits.clients = 0", "limits.clients", "0", "from 1 to"),
    ("limits.grace_s = 0", "limits.grace_s", "0", "a number over 0"),
    ("limits.grace_s = inf", "limits.grace_s", "inf", "up to 3600"),
    ("limits.grace_s = true", "limits.grace_s", "true", "a number"),
    ("limits.message_bytes = 1", "limits.message_bytes", "1", "from 128"),
    ("limits.silent_after_s = 20", "limits.silent_after_s", "20", "more than limits.ping_every_s (20.0)"),
    ("limits.ping_every_s = 60", "limits.silent_after_s", "40.0", "more than limits.ping_every_s (60.0)"),
    ("tape.entries = 0", "tape.entries", "0", "from 1"),
    ("tape.bytes = 5", "tape.bytes", "5", "from 1024"),
    ("tape.path = '/no/such/tape'", "tape.path", '"/no/such/tape"', "the path of a file in a folder that exists"),
    (r'tape.path = "a\u0000b"', "tape.path", r'"a\u0000b"', "the path of a file in a folder that exists"),
    ("hub.rest_ratio = -0.1", "hub.rest_ratio", "-0.1", "a number from 0 to 10"),
    ("hub.rest_ratio = nan", "hub.rest_ratio", "nan", "a number from 0 to 10"),
    ("supervisor.backoff_cap_s = 0.5", "supervisor.backoff_cap_s", "0.5", "at least supervisor.backoff_base_s"),
    ("supervisor.restarts = 0", "supervisor.restarts", "0", "from 1"),
    ("connectors.binance.levels = 101", "connectors.binance.levels", "101", "from 1 to 100"),
    ("connectors.binance.base_url = 'ws://x'", "connectors.binance.base_url", '"ws://x"', "http:// or https://"),
    ("connectors.binance.base_url = 'https://'", "connectors.binance.base_url", '"https://"', "a host"),
    ("connectors.binance.base_url = 'http://a:99999'", "connectors.binance.base_url", "99999", "a host"),
    ("connectors.binance.base_url = 'http://[a'", "connectors.binance.base_url", '"http://[a"', "a host"),
    ("connectors.binance.base_url = 'http://a b'", "connectors.binance.base_url", '"http://a b"', "a host"),
    ("connectors.okx.url = 'https://ws.okx.com'", "connectors.okx.url", "https://ws.okx.com", "ws:// or wss://"),
    (
        "connectors.okx.url = 'wss://ws.okx.com:8443/ws/v5/public'",
        "connectors.okx.url",
        '"wss://ws.okx.com:8443/ws/v5/public"',
        "without a port; it closed port 8443",
    ),
    ("connectors.okx.enabled = 'yes'", "connectors.okx.enabled", '"yes"', "true or false"),
    ("connectors.coingecko.plan = 'free'", "connectors.coingecko.plan", '"free"', '"keyless"'),
    ("connectors.coingecko.plan = 'demo'", "connectors.coingecko.api_key", '""', 'the key of the plan "demo"'),
    ("connectors.coingecko.api_key = 'k'", "connectors.coingecko.plan", '"keyless"', '"demo" or "pro"'),
    ("log.level = 'loud'", "log.level", '"loud"', '"debug", "error", "info", "warning"'),
    ("log.format = 1", "log.format", "1", '"auto", "json", "text"'),
    ("channels.x = 1", "channels.x", "1", "a table"),
    ("channels = 1", "channels", "1", "a table"),
    ("[channels.x]", "channels.x.connector", "none", '"binance", "okx", "coingecko"'),
    ("[channels.x]\nconnector = 'mtgox'", "channels.x.connector", '"mtgox"', '"coingecko"'),
    ("[channels.X]\nconnector = 'okx'", "channels.X", "X", "a to z, 0 to 9 and _"),
    ("[channels.'a.b']\nconnector = 'okx'", 'channels."a.b"', "a.b", "a to z, 0 to 9 and _"),
    (f"[channels.{'x' * 65}]\nconnector = 'okx'", f"channels.{'x' * 65}", "xxx", "1 to 64"),
    (BINANCE + "instrument = 'A/B'", "channels.x.kind", "none", '"prices", "orderbook", "24hr"'),
    (BINANCE + "kind = 'global'\ninstrument = 'A/B'", "channels.x.kind", '"global"', '"prices"'),
    (BINANCE + "kind = 'prices'", "channels.x.instrument", "none", "BASE/QUOTE"),
    (OKX + "instrument = 'BTC-USDT'", "channels.x.instrument", '"BTC-USDT"', "BASE/QUOTE"),
    (OKX + "instrument = 'btc/usdt'", "channels.x.instrument", '"btc/usdt"', "BASE/QUOTE in capitals"),
    (OKX + 'instrument = "A/B\\n"', "channels.x.instrument", '"A/B\\n"', "BASE/QUOTE"),
    (OKX + "instruments = []", "channels.x.instruments", "[]", "each BASE/QUOTE"),
    (OKX + "instruments = 'A/B'", "channels.x.instruments", '"A/B"', "a list"),
    (OKX + "instruments = ['A/B', 'A/B']", "channels.x.instruments", '["A/B", "A/B"]', "each instrument once"),
    (OKX + "instruments = ['A/B']\ninstrument = 'A/B'", "channels.x.instruments", '["A/B"]', "not both"),
    (OKX + "instrument = 'A/B'\ncadence_s = 1", "channels.x.cadence_s", "1.0", "okx pushes"),
    (COINGECKO + "kind = 'top'\ninstrument = 'A/B'", "channels.x.instrument", '"A/B"', "the whole market"),
    (COINGECKO + "kind = 'top'\ninstruments = ['A/B']", "channels.x.instruments", '["A/B"]', "the whole market"),
    (OKX + "instrument = 'A/B'\nstale_after_s = -1", "channels.x.stale_after_s", "-1", "a number from 0 to 86400"),
    ("crosscheck.band_percent = 0", "crosscheck.band_percent", "0", "a number over 0, up to 1000"),
    ("crosscheck.for_s = '30'", "crosscheck.for_s", '"30"', "a number over 0"),
    (COINGECKO + "kind = 'top'\ncadence_s = 0", "channels.x.cadence_s", "0", "a number from 0.01 to 86400"),
    ("channels.ethprice.instrument = 1", "channels.ethprice.instrument", "1", "BASE/QUOTE"),
    ("channels.ethprice.connector = 'binance'", "channels.ethprice.kind", "none", '"prices"'),
]


@pytest.mark.parametrize(("text", "key", "seen", "allowed"), BAD)
def test_a_mistake_is_told_by_key_value_and_what_is_allowed(text: str, key: str, seen: str, allowed: str) -> None:
    [line, *more] = errors(text)
    assert line.startswith(f"{key}: got ")
    got, _, rest = line.removeprefix(f"{key}: got ").partition("; allowed: ")
    assert seen in got
    assert allowed in rest
    # What follows from the first mistake may be told too, but never about the same key.
    assert not any(other.startswith(f"{key}: ") for other in more)


def test_a_certificate_has_to_exist(tmp_path: Path) -> None:
    existing = tmp_path / "key.pem"
    existing.touch()
    text = f"[server]\ncertificate = '{tmp_path}/no.pem'\nkey = '{existing}'"
    assert error(text) == f'server.certificate: got "{tmp_path}/no.pem"; allowed: the path of a file that exists'
    assert config(text.replace("no.pem", "key.pem")).server.key == str(existing)


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("server.prot = 1", "server.prot: unknown key; nearest is server.port"),
        ("port = 1", "port: unknown key; nearest is server.port"),
        ("limits.port = 1", "limits.port: unknown key; nearest is server.port"),
        ("[servr]\nport = 1", "servr: unknown key; nearest is server"),
        ("limits.grace = 1", "limits.grace: unknown key; nearest is limits.grace_s"),
        ("log.zzz = 1", "log.zzz: unknown key; allowed: log.level, log.format"),
        (
            "'a b' = 1",
            '"a b": unknown key; allowed: server, limits, tape, record, hub, cluster, supervisor, connectors, '
            "catalogue, channels, tokens, crosscheck, log",
        ),
        (
            "[channels.ethprice]\ninstrumnt = 'A/B'",
            "channels.ethprice.instrumnt: unknown key; nearest is channels.ethprice.instrument",
        ),
    ],
)
def test_an_unknown_key_is_refused_with_the_nearest_one(text: str, line: str) -> None:
    assert error(text) == line


def test_all_mistakes_are_told_at_once() -> None:
    text = "[server]\nport = -1\nhst = 'x'\n[log]\nlevel = 'loud'\n[channels.x]\nconnector = 'okx'\n"
    keys = [line.partition(":")[0] for line in errors(text, TICKERD_HUB__REST_RATIO="-1", TICKERD_X__Y="1")]
    assert sorted(keys) == [
        "TICKERD_X__Y",
        "channels.x.instrument",
        "hub.rest_ratio (from TICKERD_HUB__REST_RATIO)",
        "log.level",
        "server.hst",
        "server.port",
    ]


# Secrets.

SECRET = "CG-hush-hush"


def test_the_api_key_is_read_and_never_shown() -> None:
    read = config(f"connectors.coingecko.plan = 'demo'\nconnectors.coingecko.api_key = '{SECRET}'")
    assert read.connectors.of(VENUES["coingecko"]).api_key == SECRET
    assert SECRET not in repr(read)
    assert SECRET not in str(read)
    assert "api_key=***" in repr(read)
    assert "api_key=''" in repr(config())


@pytest.mark.parametrize(
    "text",
    [
        f"connectors.coingecko.api_key = '{SECRET} '",
        f"connectors.coingecko.api_key = '{SECRET}'",
        f"connectors.coingecko.api_key = ['{SECRET}']",
        f"connectors.coingecko.api_kye = '{SECRET}'",
        f"connectors.coingecko = '{SECRET}'",
        f"connectors = '{SECRET}'",
        f"connectors.coingecko.base_url = 'https://x/?x_cg_pro_api_key={SECRET}'",
        f"connectors.coingecko.base_url = 'https://{SECRET}@x:y/'",
        f'connectors.coingecko.api_key = "{SECRET}',
    ],
)
def test_no_error_shows_it(text: str) -> None:
    assert SECRET not in "\n".join(errors(text))


def test_nor_does_one_about_the_environment() -> None:
    for variable in ("TICKERD_CONNECTORS__COINGECKO__API_KEY", "TICKERD_CONNECTORS__COINGECKO__API_KYE"):
        for value in (SECRET, f"{SECRET} ", f'["{SECRET}"]'):
            assert SECRET not in "\n".join(errors(**{variable: value}))


def test_a_paid_plan_is_served_by_its_own_root() -> None:
    paid = "[connectors.coingecko]\nplan = 'pro'\napi_key = 'k'\n"
    assert config(paid).connectors.of(VENUES["coingecko"]).root == "https://pro-api.coingecko.com/api/v3"
    elsewhere = "base_url = 'http://127.0.0.1:9/api/v3'"
    assert config(paid + elsewhere).connectors.of(VENUES["coingecko"]).root == "http://127.0.0.1:9/api/v3"


def test_what_the_checks_set_for_the_tests_is_no_setting_of_the_daemon() -> None:
    said = (Path(__file__).resolve().parents[3] / ".ci" / "run").read_text()
    assert {*re.findall(r"TICKERD_[A-Z_]+", said)} <= IGNORED_VARIABLES
