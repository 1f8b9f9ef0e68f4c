"""One set of certificates for polls and websockets: the system's, those that the environment names, or Mozilla's."""

import ssl
from pathlib import Path

import certifi
import pytest

from connectors.network import trust
from connectors.poll.host import Host
from connectors.push.feed import Feed
from tests.connectors.push.scripted_venue import Words
from tests.daemon.serving import certificate


def authorities(context: ssl.SSLContext) -> int:
    return context.cert_store_stats()["x509_ca"]


def test_polls_and_websockets_trust_what_the_environment_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pem, _ = certificate(tmp_path)
    monkeypatch.setenv("SSL_CERT_FILE", str(pem))
    monkeypatch.setenv("SSL_CERT_DIR", str(tmp_path / "none"))
    host = Host("Acme", "https://acme.test", timeout_s=1.0, user_agent="tickerd/1")
    feed = Feed(Words("a"), "wss://venue/", user_agent="tickerd/1")
    for context in (host._tls, feed.target.ssl_context):
        assert context is not None
        assert authorities(context) == 1
        assert context.verify_mode == ssl.CERT_REQUIRED
        assert context.check_hostname


def test_where_the_system_has_none_mozillas_are_trusted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def bare(folder: Path) -> ssl.SSLContext:
        paths = ssl.DefaultVerifyPaths("", str(folder), "", "", "", "")
        monkeypatch.setattr(ssl, "get_default_verify_paths", lambda: paths)
        monkeypatch.setattr(ssl, "create_default_context", lambda: ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT))
        return trust.client_context()

    for variable in ("SSL_CERT_FILE", "SSL_CERT_DIR"):
        monkeypatch.delenv(variable, raising=False)
    wanted = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    wanted.load_verify_locations(certifi.where())
    assert authorities(bare(tmp_path)) == authorities(wanted) > 50
    assert authorities(bare(tmp_path / "none")) == authorities(wanted)
    (tmp_path / "0123abcd.0").touch()
    assert authorities(bare(tmp_path)) == 0
    (tmp_path / "0123abcd.0").unlink()
    monkeypatch.setenv("SSL_CERT_FILE", "/mine")
    assert authorities(bare(tmp_path)) == 0


def test_the_systems_are_taken_where_there_are_some(monkeypatch: pytest.MonkeyPatch) -> None:
    def never() -> str:
        raise AssertionError

    for variable in ("SSL_CERT_FILE", "SSL_CERT_DIR"):
        monkeypatch.delenv(variable, raising=False)
    if not authorities(ssl.create_default_context()):
        pytest.skip("this system has no certificates")
    monkeypatch.setattr(certifi, "where", never)
    assert authorities(trust.client_context()) > 0
