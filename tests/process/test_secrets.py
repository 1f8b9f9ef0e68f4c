"""Nothing secret is in a log, a metric or an answer, whatever is asked: the daemon as a process, with all it logs."""

import json
import re
import signal
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect

from daemon.config.tokens import written_hash
from daemon.front.tokens import new_token
from tests.process.running import Process, tickerd, wait_ready

KEY = "CG-2f6c8e1b9d"
GOOD, WEAK, WRONG = new_token(), "open-sesame-1234567", new_token()
SECRETS = (KEY, *(token.removeprefix("tkd_") for token in (GOOD, WEAK, WRONG)))
HASHES = tuple(written_hash(token).removeprefix("sha256:") for token in (GOOD, WEAK))

CONFIG = f"""
[tokens.partner]
hash = "{written_hash(GOOD)}"
channels = ["binance_*"]
[tokens.weak]
hash = "{written_hash(WEAK)}"
"""


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Process, Path]]:
    """With venues, a key for one of them, tokens, and every line that it can log."""
    config = tmp_path_factory.mktemp("secrets") / "tickerd.toml"
    with tickerd("simulate", "--port", "0", "--config-out", str(config)) as venues:
        assert venues.port
        with config.open("a") as file:
            file.write(CONFIG)
        environ = {
            "TICKERD_SERVER__PORT": "0",
            "TICKERD_LOG__LEVEL": "debug",
            "TICKERD_CONNECTORS__COINGECKO__PLAN": "demo",
            "TICKERD_CONNECTORS__COINGECKO__API_KEY": KEY,
        }
        with tickerd("run", "--config", str(config), environ=environ) as process:
            wait_ready(process.port)
            yield process, config


def raw(port: int, sent: str) -> bytes:
    """What is answered to these bytes, and to nothing behind them."""
    received = b""
    with socket.create_connection(("127.0.0.1", port), timeout=15) as client:
        client.sendall(sent.encode("latin-1"))
        client.shutdown(socket.SHUT_WR)
        while more := client.recv(65536):
            received += more
    return received


def broken(token: str) -> list[str]:
    """Requests with the token where it must not be, or that are none."""
    host = "Host: localhost\r\nConnection: close\r\n"
    return [
        f"GET  /ws?token={token} HTTP/1.1\r\n{host}\r\n",
        f"GET /ws?token={token}\r\n{host}\r\n",
        f"GET /ws?token={token} HTTP/3.0\r\n{host}\r\n",
        f"/ws?token={token}\r\n\r\n",
        f"GET /ws%3Ftoken={token} HTTP/1.1\r\n{host}\r\n",
        f"GET /nothing/token={token} HTTP/1.1\r\n{host}\r\n",
        f"DELETE /token={token} HTTP/1.1\r\n{host}\r\n",
        f"GET /snapshot/x%3Ftoken={token}?token={token} HTTP/1.1\r\n{host}\r\n",
        f"GET /snapshot/ethprice?token={token}&token={token} HTTP/1.1\r\n{host}\r\n",
        f"GET /snapshot/ethprice?token={token}%20 HTTP/1.1\r\n{host}\r\n",
        f"GET /gaps?token={token}&channel=nothing HTTP/1.1\r\n{host}\r\n",
        f"GET /events?channels=nothing&token={token} HTTP/1.1\r\n{host}\r\n",
        f"GET /ws HTTP/1.1\r\n{host}Authorization: Bearer {token}\x00\r\n\r\n",
        f"GET /ws HTTP/1.1\r\n{host}Authorization : Bearer {token}\r\n\r\n",
        f"GET /ws HTTP/1.1\r\n{host}Authorization: Bearer {token} {token}\r\n\r\n",
        f"GET /ws HTTP/1.1\r\n{host}Authorization: {token}\r\n\r\n",
        f"GET /ws HTTP/1.1\r\n{host}Authorization: Bearer {token}\r\nAuthorization: Bearer {token}\r\n\r\n",
        f"GET /ws HTTP/1.1\r\n{host}Authorization: Bearer {token}\r\nOrigin: http://x?token={token}\r\n"
        "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
        f"POST /ws/test HTTP/1.1\r\n{host}Authorization: Bearer {token}\r\nContent-Length: 1\r\n\r\n{{",
        f"POST /ws/test?token={token} HTTP/1.1\r\n{host}Content-Length: 99999999\r\n\r\n",
        f"GET /?{'&'.join(['a=1'] * 33)}&token={token} HTTP/1.1\r\n{host}\r\n",
        f"GET /ws?token={token} HTTP/1.1\r\n{host}X: {'x' * 20_000}\r\n\r\n",
        f"GET /ws?token={token} HTTP/1.1\r\n{host}",
    ]


def test_no_secret_is_shown_whatever_is_asked(daemon: tuple[Process, Path]) -> None:
    process, _ = daemon
    port = process.port
    base = f"http://127.0.0.1:{port}"
    answers: list[bytes] = []
    for token in (GOOD, WEAK, WRONG):
        answers += [raw(port, sent) for sent in broken(token)]
        for path in ("/snapshot/binance_prices", "/snapshot/ethprice", "/channels", "/metrics", "/asyncapi.json"):
            for query, headers in (({"token": token}, {}), ({}, {"Authorization": f"Bearer {token}"})):
                answer = httpx.get(f"{base}{path}", params=query, headers=headers)
                answers += [str(answer.headers).encode(), answer.content]
        body = json.dumps({"message": "hello"})
        for headers in ({}, {"Content-Type": "application/json"}):
            sent = httpx.post(f"{base}/ws/test", params={"token": token}, content=body, headers=headers)
            answers.append(sent.content)
    for token in (GOOD, WEAK):
        with connect(f"ws://127.0.0.1:{port}/ws?token={token}") as websocket:
            websocket.send(json.dumps({"type": "subscribe", "channels": ["ethprice", "binance_prices"]}))
            answers += [str(websocket.recv(timeout=10)).encode() for _ in range(4)]
        with httpx.stream("GET", f"{base}/events", params={"channels": "*", "token": token}) as events:
            answers.append(next(events.iter_raw()))
    with pytest.raises(InvalidStatus) as refused:
        connect(f"ws://127.0.0.1:{port}/ws", additional_headers={"Authorization": f"Bearer {WRONG}"})
    assert refused.value.response.status_code == 401
    answers.append(bytes(refused.value.response.body or b""))
    assert process.stop() == 0
    log = "\n".join(process.lines)
    assert "127.0.0.1 refused" in log
    assert "token partner" in log
    said = b"\n".join(answers).decode("latin-1")
    for secret in (*SECRETS, *HASHES):
        assert secret not in log
        assert secret not in said
    # Nor a part of one that is long enough to search for.
    for secret in SECRETS[1:]:
        assert secret[:12] not in log + said


def test_a_token_that_is_taken_away_closes_its_clients(tmp_path: Path) -> None:
    config = tmp_path / "tickerd.toml"
    with tickerd("simulate", "--port", "0", "--config-out", str(config)) as venues:
        assert venues.port
        plain = config.read_text()
        config.write_text(plain + CONFIG)
        environ = {"TICKERD_SERVER__PORT": "0", "TICKERD_SERVER__HOST": "0.0.0.0"}
        with tickerd("run", "--config", str(config), environ=environ) as process:
            url = f"ws://127.0.0.1:{process.port}/ws?token="
            with connect(url + GOOD) as partner, connect(url + WEAK) as weak:
                assert json.loads(partner.recv(timeout=10))["type"] == "welcome"
                config.write_text(plain + re.sub(r"(?s)\[tokens\.partner\].*?(?=\[tokens\.weak)", "", CONFIG))
                process.process.send_signal(signal.SIGHUP)
                goodbye = json.loads(partner.recv(timeout=10))
                assert (goodbye["type"], goodbye["reason"]) == ("goodbye", "token partner was revoked")
                with pytest.raises(ConnectionClosed) as closed:
                    partner.recv(timeout=10)
                assert closed.value.rcvd is not None
                assert closed.value.rcvd.code == 1008
                weak.send('{"type":"ping"}')
                assert {json.loads(weak.recv(timeout=10))["type"] for _ in range(2)} == {"welcome", "pong"}
            with pytest.raises(InvalidStatus):
                connect(url + GOOD)
            # Without the last one nobody may come; where everybody may, the log says so again.
            assert not any("nobody is let in" in line for line in process.lines)
            config.write_text(plain)
            process.process.send_signal(signal.SIGHUP)
            deadline = time.monotonic() + 10
            while not any("nobody is let in" in line for line in process.lines):
                assert time.monotonic() < deadline, process.lines
                time.sleep(0.02)
            assert not any("without tokens" in line for line in process.lines)
            config.write_text(plain + "\n[server]\nopen = true\n")
            process.process.send_signal(signal.SIGHUP)
            deadline = time.monotonic() + 10
            while not any("without tokens" in line for line in process.lines):
                assert time.monotonic() < deadline, process.lines
                time.sleep(0.02)
            with connect(url.partition("?")[0]) as anybody:
                assert json.loads(anybody.recv(timeout=10))["type"] == "welcome"


def test_it_is_warned_of_where_everybody_can_reach_it() -> None:
    public = {"TICKERD_SERVER__HOST": "0.0.0.0"}
    with_tokens = {"TICKERD_TOKENS__BOT__HASH": written_hash(WEAK)}
    proxy = {"TICKERD_SERVER__TRUSTED_PROXIES": '["192.0.2.1"]'}
    for environ, warned in (
        ({}, []),
        (public, ["without tokens", "without TLS"]),
        (public | with_tokens, ["without TLS"]),
        (public | with_tokens | proxy, []),
    ):
        with tickerd("demo", "--port", "0", environ=environ) as process:
            assert process.port
            assert process.stop() == 0
        said = re.findall(r"listening on 0\.0\.0\.0 (without \w+): ", "\n".join(process.lines))
        assert said == warned
