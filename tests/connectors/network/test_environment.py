"""Which proxy the environment names, and whom NO_PROXY exempts."""

import pytest

from connectors.network.environment import is_exempt, proxy_of

HTTPS, WSS = "https://api.example.com/v3", "wss://ws.example.com/public"


@pytest.mark.parametrize(
    ("url", "environ", "found"),
    [
        (HTTPS, {}, None),
        (HTTPS, {"HTTPS_PROXY": "http://p"}, ("http://p", "HTTPS_PROXY")),
        (WSS, {"HTTPS_PROXY": "http://p"}, ("http://p", "HTTPS_PROXY")),
        (WSS, {"https_proxy": " http://p "}, ("http://p", "https_proxy")),
        (HTTPS, {"https_proxy": "http://p", "HTTPS_PROXY": "http://q"}, ("http://p", "https_proxy")),
        (HTTPS, {"https_proxy": "", "HTTPS_PROXY": "http://q"}, None),
        (HTTPS, {"HTTPS_PROXY": "", "ALL_PROXY": "socks5://p"}, ("socks5://p", "ALL_PROXY")),
        (WSS, {"all_proxy": "socks5h://p"}, ("socks5h://p", "all_proxy")),
        (HTTPS, {"HTTPS_PROXY": "http://p", "ALL_PROXY": "http://q"}, ("http://p", "HTTPS_PROXY")),
        (HTTPS, {"HTTP_PROXY": "http://p"}, None),
        ("http://api.example.com", {"HTTP_PROXY": "http://p", "HTTPS_PROXY": "http://q"}, ("http://p", "HTTP_PROXY")),
        ("ws://ws.example.com", {"http_proxy": "http://p"}, ("http://p", "http_proxy")),
        (WSS, {"ALL_PROXY": "http://p", "NO_PROXY": "example.com"}, None),
        (WSS, {"ALL_PROXY": "http://p", "NO_PROXY": "*"}, None),
        (WSS, {"ALL_PROXY": "http://p", "no_proxy": "", "NO_PROXY": "*"}, ("http://p", "ALL_PROXY")),
        (WSS, {"ALL_PROXY": "http://p", "NO_PROXY": "ws.example.com:80"}, ("http://p", "ALL_PROXY")),
        (WSS, {"ALL_PROXY": "http://p", "NO_PROXY": "ws.example.com:443"}, None),
    ],
)
def test_the_variable_is_the_urls(url: str, environ: dict[str, str], found: tuple[str, str] | None) -> None:
    assert proxy_of(url, environ) == found


@pytest.mark.parametrize(
    "host",
    [
        "localhost",
        "LOCALHOST",
        "x.localhost",
        "127.0.0.1",
        "127.9.9.9",
        "[::1]",
        "[::ffff:127.0.0.1]",
        "0.0.0.0",
        "[::]",
    ],
)
@pytest.mark.parametrize("scheme", ["http", "https", "ws", "wss"])
def test_this_machine_is_never_asked_of_a_proxy(scheme: str, host: str) -> None:
    environ = dict.fromkeys(("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "all_proxy"), "http://proxy:1")
    assert proxy_of(f"{scheme}://{host}:9000/x", environ) is None


@pytest.mark.parametrize(
    ("no_proxy", "host", "port", "exempt"),
    [
        ("", "a.example.com", 443, False),
        (",, ,", "a.example.com", 443, False),
        ("*", "a.example.com", 443, True),
        ("other.org,*", "10.0.0.7", 443, True),
        ("example.com", "example.com", 443, True),
        ("example.com", "a.b.example.com", 443, True),
        ("Example.COM.", "A.example.com", 443, True),
        (".example.com", "example.com", 443, True),
        (".example.com", "a.example.com", 443, True),
        ("*.example.com", "a.example.com", 443, True),
        ("example.com", "notexample.com", 443, False),
        ("a.example.com", "example.com", 443, False),
        ("com", "example.com", 443, True),
        ("x.org example.com", "example.com", 443, True),
        ("x.org, example.com ,y.org", "example.com", 443, True),
        ("example.com:443", "example.com", 443, True),
        ("example.com:8443", "example.com", 443, False),
        (".example.com:443", "a.example.com", 443, True),
        ("10.0.0.7", "10.0.0.7", 443, True),
        ("10.0.0.7:443", "10.0.0.7", 443, True),
        ("10.0.0.7:80", "10.0.0.7", 443, False),
        ("10.0.0.7", "10.0.0.70", 443, False),
        (".7", "10.0.0.7", 443, False),
        ("0.7", "10.0.0.7", 443, False),
        ("10.0.0.0/8", "10.9.9.9", 443, True),
        ("10.0.0.1/8", "10.9.9.9", 443, True),
        ("10.0.0.0/8", "11.0.0.1", 443, False),
        ("10.0.0.0/8", "ten.example.com", 443, False),
        ("10.0.0.0/99", "10.0.0.1", 443, False),
        ("fd00::/8", "fd00::7", 443, True),
        ("fd00::7", "fd00::7", 443, True),
        ("[fd00::7]", "fd00:0::7", 443, True),
        ("[fd00::7]:443", "fd00::7", 443, True),
        ("[fd00::7]:80", "fd00::7", 443, False),
        ("10.0.0.0/8", "::ffff:10.0.0.7", 443, True),
        ("10.0.0.0/8", "fd00::7", 443, False),
    ],
)
def test_whom_no_proxy_exempts(no_proxy: str, host: str, port: int, exempt: bool) -> None:
    assert is_exempt(host, port, no_proxy) is exempt
