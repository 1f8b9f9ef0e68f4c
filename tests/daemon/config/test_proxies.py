"""Each venue's proxy: by its key, a credential or the environment; and the certificates that are trusted."""

from pathlib import Path

import pytest

from connectors.network.proxy import ALLOWED
from connectors.poll.poller import Poller
from connectors.push.feed import Feed
from connectors.venues.registry import COINGECKO, OKX, VENUES
from daemon.commands.demo import demo_config
from daemon.config.changes import changed_venues
from daemon.config.load import Config, ConfigError, load, parse
from tests.daemon.serving import certificate

SECRET = "hush-hush"
LOGIN = f"http://user:{SECRET}@proxy.example.net:3128"


def config(text: str = "", **environ: str) -> Config:
    return parse(text, environ, "test.toml")


def proxies(read: Config) -> list[str]:
    return [read.connectors.of(VENUES[name]).proxy for name in ("binance", "okx", "coingecko")]


def errors(text: str = "", **environ: str) -> tuple[str, ...]:
    with pytest.raises(ConfigError) as refused:
        config(text, **environ)
    return refused.value.errors


def test_without_a_word_there_is_none() -> None:
    read = config()
    assert read.ways == ()
    for venue in (venue for venue in VENUES.values() if not venue.is_derived):
        channels = [channel for channel in read.channels if channel.exchange == venue.name]
        for connector in venue.build(channels, read.connectors.of(venue), "test/1"):
            assert tunnel(connector) is None


def tunnel(connector: object) -> object:
    if isinstance(connector, Feed):
        return connector.target.tunnel
    assert isinstance(connector, Poller)
    return connector._host.tunnel


def test_each_venue_may_have_its_own_and_all_of_it_goes_there() -> None:
    read = config(
        "connectors.okx.proxy = 'socks5h://10.0.0.1'\nconnectors.binance.proxy = 'http://10.0.0.2:3128'",
        HTTPS_PROXY="http://10.0.0.3:3128",
    )
    assert proxies(read) == ["http://10.0.0.2:3128", "socks5h://10.0.0.1", "http://10.0.0.3:3128"]
    assert read.ways == (
        "Binance is reached through the proxy http://10.0.0.2:3128 (connectors.binance.proxy)",
        "OKX is reached through the proxy socks5h://10.0.0.1:1080 (connectors.okx.proxy)",
        "CoinGecko is reached through the proxy http://10.0.0.3:3128 (HTTPS_PROXY)",
    )
    for venue in (venue for venue in VENUES.values() if not venue.is_derived):
        channels = [channel for channel in read.channels if channel.exchange == venue.name]
        for connector in venue.build(channels, read.connectors.of(venue), "test/1"):
            assert tunnel(connector) is not None


def test_an_empty_one_goes_straight_whatever_the_environment_says() -> None:
    read = config("connectors.okx.proxy = ''", ALL_PROXY="http://p:1", TICKERD_CONNECTORS__BINANCE__PROXY="")
    assert proxies(read) == ["", "", "http://p:1"]
    assert [way.split()[0] for way in read.ways] == ["CoinGecko"]


def test_no_proxy_exempts_a_venue_by_the_url_that_is_asked() -> None:
    environ = {"ALL_PROXY": "http://p:1", "NO_PROXY": "pro-api.coingecko.com,.okx.com"}
    assert proxies(config(**environ)) == ["http://p:1", "environment", "http://p:1"]
    paid = config("[connectors.coingecko]\nplan = 'pro'\napi_key = 'k'", **environ)
    assert paid.connectors.of(COINGECKO).proxy == "environment"


def test_this_machine_is_not_asked_of_it_but_by_the_key() -> None:
    here = "connectors.okx.url = 'ws://127.0.0.1:9000/x'\nconnectors.binance.base_url = 'http://localhost:9000'"
    environ = {"HTTP_PROXY": "http://p:1", "ALL_PROXY": "http://p:1"}
    assert proxies(config(here, **environ))[:2] == ["environment", "environment"]
    read = config(f"{here}\nconnectors.okx.proxy = 'http://q:1'", **environ)
    assert read.connectors.of(OKX).proxy == "http://q:1"


def test_the_demo_never_asks_one_and_does_not_mind_a_bad_one() -> None:
    for url in ("http://p:1", "socks4://p:1"):
        read = demo_config(9000, {"HTTP_PROXY": url, "ALL_PROXY": url, "SSL_CERT_FILE": "/nowhere"}, None)
        assert read.ways == ()


@pytest.mark.parametrize(
    "url", ["socks4://p:1", "ftp://p:1", "http://p:99999", "http://", "http://p:1/x y", "p:x", "\n"]
)
def test_a_bad_one_is_refused_by_key_or_variable_with_what_is_allowed(url: str) -> None:
    [line] = errors(TICKERD_CONNECTORS__OKX__PROXY=url)
    assert line.startswith("connectors.okx.proxy (from TICKERD_CONNECTORS__OKX__PROXY): got ")
    assert line.endswith(f"; allowed: {ALLOWED}")
    if url.strip():
        [line] = errors(HTTPS_PROXY=url)
        assert line.startswith("HTTPS_PROXY: got ")
        assert line.endswith(f"; allowed: {ALLOWED}")


def test_a_scheme_that_is_none_is_shown() -> None:
    assert 'got "socks4://***@p:1"; allowed: ' in errors(ALL_PROXY=f"socks4://user:{SECRET}@p:1")[0]
    assert 'got "socks4://p:1"; allowed: ' in errors("connectors.okx.proxy = 'socks4://p:1'")[0]


def test_a_bad_one_that_no_venue_would_use_is_no_matter() -> None:
    read = config("connectors.coingecko.enabled = false", ALL_PROXY="socks4://p:1", NO_PROXY="*")
    assert read.ways == ()


@pytest.mark.parametrize(
    "url",
    [LOGIN, f"http://user:{SECRET}", f"socks4://user:{SECRET}@p", f"http://p:1?{SECRET}", f"http://u:{SECRET}#x@p:1"],
)
def test_no_password_shows(url: str) -> None:
    for text, environ in (
        (f"connectors.okx.proxy = '{url}'", {}),
        (f"connectors.okx.proxy = ['{url}']", {}),
        (f"connectors.okx.prox = '{url}'", {}),
        ("", {"TICKERD_CONNECTORS__OKX__PROXY": url}),
        ("", {"HTTPS_PROXY": url}),
        ("", {"TICKERD_CONNECTORS__OKX__PROXI": url}),
    ):
        told = outcome(text, environ)
        assert SECRET not in told


def outcome(text: str, environ: dict[str, str]) -> str:
    """All that is said of such a configuration."""
    try:
        read = config(text, **environ)
    except ConfigError as refused:
        return str(refused)
    return repr(read)


def test_it_may_be_a_credential(tmp_path: Path) -> None:
    (tmp_path / "okx_proxy").write_text(f"{LOGIN}\n")
    read = load(None, {"CREDENTIALS_DIRECTORY": str(tmp_path), "HTTPS_PROXY": "http://p:1"})
    assert proxies(read) == ["http://p:1", LOGIN, "http://p:1"]
    assert SECRET not in repr(read)
    (tmp_path / "okx_proxy").write_text(f"ftp://user:{SECRET}@p")
    with pytest.raises(ConfigError) as refused:
        load(None, {"CREDENTIALS_DIRECTORY": str(tmp_path)})
    [line] = refused.value.errors
    assert line.startswith(
        'connectors.okx.proxy (from "CREDENTIALS_DIRECTORY/okx_proxy"): got "ftp://***@p"; allowed: '
    )


def test_a_venue_whose_proxy_changes_begins_anew() -> None:
    assert list(changed_venues(config(), config("connectors.okx.proxy = 'http://p:1'"))) == ["okx"]
    assert list(changed_venues(config(), config(HTTPS_PROXY="http://p:1"))) == ["binance", "okx", "coingecko"]


def test_certificates_that_the_environment_names_are_looked_at(tmp_path: Path) -> None:
    pem, _ = certificate(tmp_path)
    (tmp_path / "junk").write_text("junk")
    assert config(SSL_CERT_FILE=str(pem), SSL_CERT_DIR=f"/nowhere:{tmp_path}").channels
    for path in ("/nowhere", str(tmp_path / "junk"), str(tmp_path)):
        [line] = errors(SSL_CERT_FILE=path)
        assert line.startswith(f'SSL_CERT_FILE: got "{path}"; allowed: the path of a file that can be read, with ')
    [line] = errors(SSL_CERT_DIR="/nowhere")
    assert line.startswith('SSL_CERT_DIR: got "/nowhere"; allowed: the path of a folder')
    plain = "connectors.binance.base_url = 'http://binance.example.net'\n" + "".join(
        f"connectors.{name}.enabled = false\n" for name in ("okx", "coingecko")
    )
    assert config(plain, SSL_CERT_FILE="/nowhere").channels
    assert errors(plain, SSL_CERT_FILE="/nowhere", HTTP_PROXY="https://p:1")
