"""Behind nginx and Caddy, with the configurations that systemd/DEPLOYING.md shows, word for word but for addresses."""

import json
import os
import shutil
import socket
import ssl
import subprocess
import tempfile
import threading
import time
import tomllib
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from email.message import Message
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import httpx
import pytest
import trio
from websockets.exceptions import InvalidStatus
from websockets.trio.client import connect

from tests.process.fenced import only, replaced
from tests.process.running import START_S, tickerd, wait_ready

SOON_S = 10.0
PAGE = "systemd/DEPLOYING.md"
HEADING = "## Behind nginx or Caddy"

NGINX = """
daemon off;
pid nginx.pid;
error_log stderr;
events {{}}
http {{
    access_log off;
    client_body_temp_path body;
    proxy_temp_path proxy;
    fastcgi_temp_path fastcgi;
    uwsgi_temp_path uwsgi;
    scgi_temp_path scgi;
    {site}
}}
"""
"""What a distribution's nginx.conf has around a site; all paths are below the folder it runs in."""

CADDY = """
{{
    admin off
    skip_install_trust
    auto_https disable_redirects
}}
{site}
"""


def program(name: str, package: str) -> str:
    """Where it is; `TICKERD_REQUIRE_PROXIES=1` makes its absence an error, as it is for the checks."""
    path = shutil.which(name, path=f"{os.environ['PATH']}:/usr/sbin")
    if path is None:
        absent = f"no {name} here; Debian and Ubuntu have it: apt-get install {package}"
        if os.environ.get("TICKERD_REQUIRE_PROXIES"):
            pytest.fail(absent)
        pytest.skip(absent)
    return path


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def unverified() -> ssl.SSLContext:
    """The certificates are throw-away."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


def shake_hands(port: int) -> None:
    """Raises: OSError, until the proxy listens and has a certificate, which Caddy makes after it listens."""
    with socket.create_connection(("127.0.0.1", port), 1) as plain:
        unverified().wrap_socket(plain, server_hostname="localhost").close()


@contextmanager
def running(command: list[str], folder: Path, port: int) -> Iterator[None]:
    """A proxy that listens on the port; as nobody, where we are root."""
    user, group = ("nobody", "nogroup") if os.geteuid() == 0 else (None, None)
    if user is not None:
        for path in (folder, *folder.iterdir()):
            shutil.chown(path, user, group)
    environ = {"PATH": os.environ["PATH"], "HOME": str(folder)}
    log = folder / "log"
    with log.open("wb") as sink:
        process = subprocess.Popen(command, cwd=folder, env=environ, stdout=sink, stderr=sink, user=user, group=group)
    try:
        deadline = time.monotonic() + START_S
        while True:
            try:
                shake_hands(port)
                break
            except OSError:
                assert process.poll() is None, log.read_text()
                assert time.monotonic() < deadline, log.read_text()
                time.sleep(0.02)
        yield
    finally:
        process.terminate()
        process.wait(10)


def certificate(folder: Path) -> None:
    made = "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=localhost"
    command = [program("openssl", "openssl"), *made.split(), "-keyout", "privkey.pem", "-out", "fullchain.pem"]
    subprocess.run(command, cwd=folder, check=True, capture_output=True)


@contextmanager
def nginx(folder: Path, daemon_port: int) -> Iterator[int]:
    binary = program("nginx", "nginx-light")
    port = free_port()
    certificate(folder)
    site = replaced(
        only(PAGE, HEADING, "nginx"),
        ("127.0.0.1:8000;\n", f"127.0.0.1:{daemon_port};\n"),
        ("listen 80;", f"listen 127.0.0.1:{free_port()};"),
        ("listen 443 ssl;", f"listen 127.0.0.1:{port} ssl;"),
        ("/etc/ssl/tickerd/fullchain.pem", str(folder / "fullchain.pem")),
        ("/etc/ssl/tickerd/privkey.pem", str(folder / "privkey.pem")),
    )
    (folder / "nginx.conf").write_text(NGINX.format(site=site))
    with running([binary, "-e", "stderr", "-p", str(folder), "-c", str(folder / "nginx.conf")], folder, port):
        yield port


@contextmanager
def caddy(folder: Path, daemon_port: int) -> Iterator[int]:
    binary = program("caddy", "caddy")
    port = free_port()
    site = replaced(
        only(PAGE, HEADING, "caddyfile"),
        # For this name it makes a certificate itself.
        ("tickerd.example.org", f"https://localhost:{port}"),
        ("127.0.0.1:8000", f"127.0.0.1:{daemon_port}"),
    )
    (folder / "Caddyfile").write_text(CADDY.format(site=site))
    with running([binary, "run", "--config", str(folder / "Caddyfile")], folder, port):
        yield port


@pytest.fixture(scope="module")
def daemon_port() -> Iterator[int]:
    """A demo that believes its proxy, as the page says."""
    server = tomllib.loads(only(PAGE, HEADING, "toml"))["server"]
    environ = {f"TICKERD_SERVER__{key.upper()}": json.dumps(value) for key, value in server.items()}
    assert set(server) == {"host", "trusted_proxies", "names"}
    # So that somebody is another one.
    environ["TICKERD_SERVER__ORIGINS"] = '["https://listed.example"]'
    with tickerd("demo", "--port", "0", environ=environ) as process:
        wait_ready(process.port)
        yield process.port


PROXIES = pytest.mark.parametrize("proxy", [nginx, caddy])


@pytest.fixture(scope="module", params=[nginx, caddy], ids=["nginx", "caddy"])
def port(request: pytest.FixtureRequest, daemon_port: int) -> Iterator[int]:
    """The proxy's port; it speaks TLS."""
    # Not pytest's own folder, to which only its owner has access.
    with tempfile.TemporaryDirectory() as folder, request.param(Path(folder), daemon_port) as port:
        yield port


@pytest.fixture
def client(port: int) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=f"https://localhost:{port}", verify=unverified(), timeout=10) as client:
        yield client


def test_the_page_and_its_script_come_through(client: httpx.Client) -> None:
    page = client.get("/")
    assert "<title>tickerd" in page.text
    assert "content-security-policy" in page.headers
    assert "export function connect" in client.get("/client.js").text
    assert client.get("/healthz").status_code == 200


async def test_the_pages_own_websocket_gets_data(port: int) -> None:
    headers = {"Origin": f"https://localhost:{port}"}
    with trio.fail_after(SOON_S):
        async with connect(f"wss://localhost:{port}/ws", ssl=unverified(), additional_headers=headers) as websocket:
            assert json.loads(await websocket.recv())["type"] == "welcome"
            await websocket.send('{"type":"subscribe","channels":["bitcoinprice"]}')
            seen = [json.loads(await websocket.recv()) for _ in range(4)]
    assert [message["type"] for message in seen].count("price_update") >= 2


@pytest.mark.parametrize("origin", ["https://elsewhere.example", "http://localhost:{port}", "https://localhost"])
async def test_a_page_of_another_origin_is_refused(port: int, origin: str) -> None:
    headers = {"Origin": origin.format(port=port)}
    with pytest.raises(InvalidStatus) as refused:
        async with connect(f"wss://localhost:{port}/ws", ssl=unverified(), additional_headers=headers):
            pass
    assert refused.value.response.status_code == 403


def test_events_are_passed_on_at_once(client: httpx.Client) -> None:
    prices: list[float] = []
    with client.stream("GET", "/events", params={"channels": "bitcoinprice"}) as answer:
        assert answer.headers["content-type"].startswith("text/event-stream")
        for line in answer.iter_lines():
            if '"type":"price_update"' in line.replace(" ", ""):
                prices.append(time.monotonic())
            if len(prices) == 6:
                break
    # Ten a second are made. From a full buffer they would come together.
    assert prices[-1] - prices[0] > 0.2


EVENTS = "events?channels=bitcoinprice"


def times_of_prices(url: str, **headers: str) -> tuple[list[float], httpx.Headers]:
    """When six prices of an event stream came, and the answer's headers. Ten a second are made."""
    prices: list[float] = []
    with (
        httpx.Client(verify=unverified(), timeout=10) as client,
        client.stream("GET", url, headers=headers) as answer,
    ):
        assert answer.status_code == 200
        for line in answer.iter_lines():
            if '"type":"price_update"' in line.replace(" ", ""):
                prices.append(time.monotonic())
            if len(prices) == 6:
                break
        return prices, answer.headers


COMPRESSING_NGINX = """
gzip on;
gzip_types *;
gzip_min_length 0;
gzip_proxied any;
server {{
    listen 127.0.0.1:{port} ssl;
    ssl_certificate {folder}/fullchain.pem;
    ssl_certificate_key {folder}/privkey.pem;
    location / {{ proxy_pass http://127.0.0.1:{daemon_port}; }}
    location /feed/ {{ proxy_pass http://127.0.0.1:{daemon_port}; {upgrade} }}
    location /stripped/ {{
        proxy_pass http://127.0.0.1:{daemon_port}/;
        proxy_set_header X-Forwarded-Prefix /stripped;
        proxy_set_header X-Forwarded-Host $http_host;
        proxy_set_header X-Forwarded-Proto $scheme;
        proxy_set_header X-Forwarded-For $remote_addr;
        {upgrade}
    }}
}}
"""
UPGRADE = "proxy_http_version 1.1; proxy_set_header Upgrade $http_upgrade; proxy_set_header Connection upgrade;"

COMPRESSING_CADDY = """
https://localhost:{port} {{
    encode gzip zstd
    handle /stripped/* {{
        uri strip_prefix /stripped
        reverse_proxy 127.0.0.1:{daemon_port} {{
            header_up Host backend.internal
            header_up X-Forwarded-Prefix /stripped
        }}
    }}
    handle {{
        reverse_proxy 127.0.0.1:{daemon_port}
    }}
}}
"""


@contextmanager
def compressing_nginx(folder: Path, daemon_port: int) -> Iterator[int]:
    """As many have it: HTTP/1.0 to the daemon, its name in `Host`, buffers on, and everything compressed."""
    binary = program("nginx", "nginx-light")
    port = free_port()
    certificate(folder)
    site = COMPRESSING_NGINX.format(port=port, folder=folder, daemon_port=daemon_port, upgrade=UPGRADE)
    (folder / "nginx.conf").write_text(NGINX.format(site=site))
    with running([binary, "-e", "stderr", "-p", str(folder), "-c", str(folder / "nginx.conf")], folder, port):
        yield port


@contextmanager
def compressing_caddy(folder: Path, daemon_port: int) -> Iterator[int]:
    binary = program("caddy", "caddy")
    port = free_port()
    site = COMPRESSING_CADDY.format(port=port, daemon_port=daemon_port)
    (folder / "Caddyfile").write_text(CADDY.format(site=site))
    with running([binary, "run", "--config", str(folder / "Caddyfile")], folder, port):
        yield port


@pytest.fixture(scope="module")
def prefixed_port() -> Iterator[int]:
    """A demo that trusts its proxy, takes its PROXY protocol, and knows of a prefix."""
    environ = {
        "TICKERD_SERVER__TRUSTED_PROXIES": '["127.0.0.1"]',
        "TICKERD_SERVER__PREFIX": "/feed",
        "TICKERD_SERVER__PROXY_PROTOCOL": "true",
        "TICKERD_SERVER__ORIGINS": '["https://listed.example"]',
    }
    with tickerd("demo", "--port", "0", environ=environ) as process:
        wait_ready(process.port)
        yield process.port


@pytest.fixture(scope="module", params=[compressing_nginx, compressing_caddy], ids=["nginx", "caddy"])
def compressing(request: pytest.FixtureRequest, prefixed_port: int) -> Iterator[tuple[str, int]]:
    with tempfile.TemporaryDirectory() as folder, request.param(Path(folder), prefixed_port) as port:
        yield request.param.__name__.rpartition("_")[2], port


def test_events_are_passed_on_at_once_by_proxies_that_compress(compressing: tuple[str, int]) -> None:
    _, port = compressing
    base = f"https://localhost:{port}"
    page = httpx.get(f"{base}/client.js", verify=unverified(), headers={"Accept-Encoding": "gzip"})
    assert page.headers["content-encoding"] == "gzip", "they do compress"
    for path in (EVENTS, f"feed/{EVENTS}", f"stripped/{EVENTS}"):
        prices, headers = times_of_prices(f"{base}/{path}", **{"Accept-Encoding": "gzip"})
        assert "no-transform" in headers["cache-control"]
        # From a full buffer they would come together.
        assert prices[-1] - prices[0] > 0.2, path


@pytest.mark.parametrize("prefix", ["feed", "stripped"])
async def test_below_a_prefix_everything_is_there(compressing: tuple[str, int], prefix: str) -> None:
    name, port = compressing
    base = f"https://localhost:{port}/{prefix}"
    async with httpx.AsyncClient(verify=unverified(), timeout=10) as client:
        assert "<title>tickerd" in (await client.get(f"{base}/")).text
        for path in ("client.js", "page.js", "style.css", "channels", "snapshot/bitcoinprice/", "healthz/"):
            assert (await client.get(f"{base}/{path}")).status_code == 200, path
        if prefix == "stripped":
            servers = (await client.get(f"{base}/asyncapi.json")).json()["servers"]
            assert {(each["host"], each["protocol"], each["pathname"]) for each in servers.values()} == {
                (f"localhost:{port}", protocol, "/stripped") for protocol in ("wss", "https")
            }
    # An origin of our own is let in though the list does not name it: the proxy says what the client wrote.
    headers = {} if (name, prefix) == ("nginx", "feed") else {"Origin": f"https://localhost:{port}"}
    for path in ("ws", "ws/"):
        url = f"wss://localhost:{port}/{prefix}/{path}"
        with trio.fail_after(SOON_S):
            async with connect(url, ssl=unverified(), additional_headers=headers) as websocket:
                assert json.loads(await websocket.recv())["type"] == "welcome"


def test_metrics_are_private(client: httpx.Client, daemon_port: int) -> None:
    assert client.get("/metrics").status_code == 404
    assert httpx.get(f"http://127.0.0.1:{daemon_port}/metrics").status_code == 200


@PROXIES
def test_whatever_a_client_writes_the_daemon_is_told_who_it_is(
    proxy: Callable[[Path, int], AbstractContextManager[int]],
) -> None:
    heard: list[Message] = []

    class Recorder(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            heard.append(self.headers)
            self.send_response(204)
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:
            pass

    forged = {"X-Forwarded-For": "198.51.100.7", "X-Forwarded-Proto": "http"}
    with HTTPServer(("127.0.0.1", 0), Recorder) as server, tempfile.TemporaryDirectory() as folder:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            with proxy(Path(folder), server.server_port) as port:
                base = f"https://localhost:{port}"
                assert httpx.get(f"{base}/", headers=forged, verify=unverified()).status_code == 204
        finally:
            server.shutdown()
            thread.join()
    [headers] = heard
    assert headers.get_all("X-Forwarded-Proto") == ["https"]
    # The nearest hop is the last one; what a client wrote is gone, or to the left of it.
    assert ", ".join(headers.get_all("X-Forwarded-For", [])).rpartition(", ")[2] in ("127.0.0.1", "::1")
    assert headers["Host"] == f"localhost:{port}"


def announce(port: int, **headers: str) -> int:
    """The status of a `POST /ws/test` through a proxy."""
    url = f"https://localhost:{port}/ws/test"
    return httpx.post(url, json={"message": "hello"}, headers=headers, verify=unverified()).status_code


@PROXIES
def test_through_a_proxy_that_is_not_trusted_nobody_can_announce_anything(
    proxy: Callable[[Path, int], AbstractContextManager[int]],
) -> None:
    with (
        tickerd("demo", "--port", "0") as process,
        tempfile.TemporaryDirectory() as folder,
        proxy(Path(folder), process.port) as port,
    ):
        assert announce(port) == 403


def test_through_a_trusted_one_only_those_on_this_machine_can(daemon_port: int) -> None:
    # Only nginx can be told by us that we are elsewhere, as if another proxy here had it from there: Caddy drops what
    # its clients forward.
    with tempfile.TemporaryDirectory() as folder, nginx(Path(folder), daemon_port) as port:
        assert announce(port, **{"X-Forwarded-For": "203.0.113.9"}) == 403
        assert announce(port, **{"X-Forwarded-For": "127.0.0.1, 203.0.113.9"}) == 403
        assert announce(port) == 200
