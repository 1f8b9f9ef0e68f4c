"""SIGHUP: another configuration for a daemon that runs, with clients connected all the while."""

import json
import os
import signal
import ssl
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
import trio
from websockets.sync.client import ClientConnection, connect
from websockets.trio.client import ClientConnection as TrioConnection
from websockets.trio.client import connect as over_trio

from daemon.config.presets import preset_channels
from daemon.config.tokens import written_hash
from daemon.front.tokens import new_token
from tests.daemon.serving import certificate
from tests.process.running import COMMAND, Process, tickerd, wait_ready

SOON_S = 10.0


@contextmanager
def configured(folder: Path, more: str = "") -> Iterator[tuple[Process, Path, str]]:
    """A daemon before simulated venues, its configuration file, and what that says at first."""
    file = folder / "tickerd.toml"
    with tickerd("simulate", "--config-out", str(file)) as venues:
        assert venues.port
        text = file.read_text() + f"\n{more}[server]\nport = 0\nhost = '127.0.0.1'\n"
        file.write_text(text)
        with tickerd("run", "--config", str(file)) as daemon:
            wait_ready(daemon.port)
            yield daemon, file, text


def reload(daemon: Process, file: Path, text: str, said: str = "reloaded;") -> str:
    """Write the file, send SIGHUP, and return the line of the log that holds `said`, new since then."""
    file.write_text(text)
    before = len(daemon.lines)
    daemon.process.send_signal(signal.SIGHUP)
    deadline = time.monotonic() + SOON_S
    while time.monotonic() < deadline:
        for line in daemon.lines[before:]:
            if said in line:
                return line
        time.sleep(0.02)
    raise AssertionError(f"no line with {said!r}: {daemon.lines[before:]}")


def states(port: int) -> dict[str, dict[str, Any]]:
    channels = json.loads(httpx.get(f"http://127.0.0.1:{port}/channels").content)["channels"]
    return {channel["name"]: channel for channel in channels}


def until(websocket: ClientConnection, **fields: object) -> dict[str, Any]:
    """Read on to the first message with these fields."""
    deadline = time.monotonic() + SOON_S
    while time.monotonic() < deadline:
        message: dict[str, Any] = json.loads(websocket.recv(SOON_S))
        if all(message.get(name) == value for name, value in fields.items()):
            return message
    raise AssertionError(f"no message with {fields}")


@contextmanager
def listen(port: int, *channels: str) -> Iterator[ClientConnection]:
    with connect(f"ws://127.0.0.1:{port}/ws") as websocket:
        until(websocket, type="welcome")
        websocket.send(json.dumps({"type": "subscribe", "channels": list(channels)}))
        until(websocket, type="subscribed")
        yield websocket


def test_channels_come_and_go_and_clients_stay(tmp_path: Path) -> None:
    with configured(tmp_path) as (daemon, file, text), listen(daemon.port, "*") as client:
        binance = states(daemon.port)["binance_prices"]["since"]
        changed = text + (
            "\n[channels.ethprice]\nenabled = false\n"
            '\n[channels.solprice]\nconnector = "okx"\ninstrument = "SOL/USDT"\n'
        )
        line = reload(daemon, file, changed)
        assert line.endswith("venues that began anew: okx")
        removed = until(client, type="status", channel="ethprice", state="down")
        assert removed["reason"] == "taken out of the configuration"
        anew = until(client, type="status", channel="bitcoinprice", state="connecting")
        assert anew["reason"] == "the configuration was changed"
        until(client, type="status", channel="bitcoinprice", state="live")
        until(client, type="price_update", connector_id="bitcoinprice")
        now = states(daemon.port)
        assert "ethprice" not in now
        assert now["binance_prices"]["since"] == binance, "a venue that did not change was disturbed"
        # The same client, the same connection: the new channel can be had, the old one cannot.
        client.send('{"type":"subscribe","channels":["solprice","ethprice"],"id":5}')
        assert until(client, type="error", id=5)["code"] == "unknown_channel"
        assert until(client, type="subscribed", id=5)["channels"] == ["solprice"]
        until(client, type="price_update", connector_id="solprice", instrument="SOL/USDT")
        assert httpx.get(f"http://127.0.0.1:{daemon.port}/snapshot/ethprice").status_code == 404
        gaps = json.loads(httpx.get(f"http://127.0.0.1:{daemon.port}/gaps").content)["gaps"]
        assert all(gap["end"] is not None for gap in gaps if gap.get("channel") == "ethprice")
        # And back again: who was subscribed before still is.
        reload(daemon, file, text)
        until(client, type="price_update", connector_id="ethprice")
        assert "solprice" not in states(daemon.port)
        assert daemon.stop() == 0
    assert not any("Traceback" in line for line in daemon.lines), daemon.lines


def test_a_channel_that_is_about_another_instrument_shows_nothing_of_the_old_one(tmp_path: Path) -> None:
    with configured(tmp_path) as (daemon, file, text):
        reload(daemon, file, text + '\n[channels.bitcoinprice]\ninstrument = "SOL/USDT"\n')
        wait_ready(daemon.port)
        snapshot = json.loads(httpx.get(f"http://127.0.0.1:{daemon.port}/snapshot/bitcoinprice").content)
        assert [message["instrument"] for message in snapshot["messages"]] == ["SOL/USDT"]


def test_a_wrong_file_is_reported_and_changes_nothing(tmp_path: Path) -> None:
    with configured(tmp_path) as (daemon, file, text), listen(daemon.port, "bitcoinprice") as client:
        before = {name: state["since"] for name, state in states(daemon.port).items()}
        for mistake, said in (
            ("\n[limits]\nclients = 0\n", "limits.clients"),
            ("\n[limits\n", "tickerd.toml"),
            ("\n[channels.x]\nconnector = 'mtgox'\n", "channels.x.connector"),
        ):
            line = reload(daemon, file, text + mistake, "not reloaded")
            assert said in line
            assert " ERROR " in line
            assert "the old configuration stays" in line
        file.unlink()
        daemon.process.send_signal(signal.SIGHUP)
        until(client, type="price_update")
        assert {name: state["since"] for name, state in states(daemon.port).items()} == before
        assert reload(daemon, file, text).endswith("venues that began anew: none")
        assert daemon.stop() == 0
    assert not any("Traceback" in line for line in daemon.lines), daemon.lines


def test_limits_origins_and_the_level_of_the_log_change_for_who_comes_next(tmp_path: Path) -> None:
    upgrade = {
        "Connection": "Upgrade",
        "Upgrade": "websocket",
        "Sec-WebSocket-Version": "13",
        "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
    }
    with configured(tmp_path) as (daemon, file, text), listen(daemon.port, "bitcoinprice") as client:
        url = f"http://127.0.0.1:{daemon.port}/ws"
        reload(daemon, file, text + "origins = ['https://example.org']\n[limits]\nclients = 1\n")
        refused = httpx.get(url, headers=upgrade)
        assert refused.status_code == 503
        assert "all 1 places" in refused.json()["message"]
        assert httpx.get(url, headers=upgrade | {"Origin": "https://example.net"}).status_code == 403
        assert httpx.get(url, headers=upgrade | {"Origin": "https://example.org"}).status_code == 503
        until(client, type="price_update")
        # A key that is only looked at once is named, and everything else is done.
        quiet = text.replace("port = 0", "port = 1") + "\n[log]\nlevel = 'warning'\n"
        assert " WARNING " in reload(daemon, file, quiet, "server.port has changed: that takes a restart")
        with listen(daemon.port, "bitcoinprice") as another:
            until(another, type="price_update")
        assert daemon.stop() == 0


def test_revoking_the_last_token_opens_the_door_to_nobody_over_a_restart_too(tmp_path: Path) -> None:
    token = new_token()
    with configured(tmp_path, f"[tape]\npath = '{tmp_path / 'tape'}'\n") as (daemon, file, text):
        guarded = f"{text}[tokens.only]\nhash = '{written_hash(token)}'\n"
        reload(daemon, file, guarded)
        url = f"http://127.0.0.1:{daemon.port}/snapshot/bitcoinprice"
        assert httpx.get(url, params={"token": token}).status_code == 200
        reload(daemon, file, text, "nobody is let in: no token is in force")
        assert httpx.get(url, params={"token": token}).status_code == 401
        assert httpx.get(url).status_code == 401
        checked = subprocess.run([*COMMAND, "check", str(file)], capture_output=True, text=True, timeout=SOON_S)
        assert (checked.returncode, "nobody is let in" in checked.stdout) == (0, True)
        assert daemon.stop() == 0
        with tickerd("run", "--config", str(file)) as again:
            url = f"http://127.0.0.1:{again.port}/snapshot/bitcoinprice"
            assert httpx.get(url).status_code == 401
            assert any("nobody is let in" in line for line in again.lines)
            opened = text.replace("[server]", "[server]\nopen = true")
            reload(again, file, opened)
            assert httpx.get(url).status_code == 200
            reload(again, file, text)
            assert again.stop() == 0
        with tickerd("run", "--config", str(file)) as again:
            assert httpx.get(f"http://127.0.0.1:{again.port}/snapshot/bitcoinprice").status_code == 200
        checked = subprocess.run([*COMMAND, "check", str(file)], capture_output=True, text=True, timeout=SOON_S)
        assert "nobody" not in checked.stdout


async def test_a_renewed_certificate_is_shown_to_who_comes_next(tmp_path: Path) -> None:
    async def welcomed(client: TrioConnection) -> None:
        with trio.fail_after(SOON_S):
            assert json.loads(await client.recv())["type"] == "welcome"

    old, new = tmp_path / "old", tmp_path / "new"
    old.mkdir()
    new.mkdir()
    pem, key = certificate(old)
    file = tmp_path / "tickerd.toml"
    with tickerd("simulate", "--config-out", str(file)) as venues:
        assert venues.port
        text = file.read_text() + f"\n[server]\nport = 0\nhost = '127.0.0.1'\ncertificate = '{pem}'\nkey = '{key}'\n"
        file.write_text(text)
        with tickerd("run", "--config", str(file)) as daemon:
            port = daemon.port
            trusting_old = ssl.create_default_context(cafile=str(pem))
            async with over_trio(f"wss://localhost:{port}/ws", ssl=trusting_old) as client:
                await welcomed(client)
                for name, made in zip((pem, key), certificate(new), strict=True):
                    os.replace(made, name)
                trusting_new = ssl.create_default_context(cafile=str(pem))
                reload(daemon, file, text)
                async with over_trio(f"wss://localhost:{port}/ws", ssl=trusting_new) as another:
                    await welcomed(another)
                with pytest.raises(trio.BrokenResourceError) as refused:
                    async with over_trio(f"wss://localhost:{port}/ws", ssl=trusting_old):
                        pass
                assert isinstance(refused.value.__cause__, ssl.SSLCertVerificationError)
                await client.send('{"type":"ping","id":1}')
                with trio.fail_after(SOON_S):
                    pong = json.loads(await client.recv())
                assert (pong["type"], pong["id"]) == ("pong", 1)
                pem.write_text("not a certificate")
                assert "server.certificate" in reload(daemon, file, text, "not reloaded")
                async with over_trio(f"wss://localhost:{port}/ws", ssl=trusting_new) as another:
                    await welcomed(another)
            assert daemon.stop() == 0
    assert not any("Traceback" in line for line in daemon.lines), daemon.lines


def test_a_storm_of_reloads_and_a_stop_in_its_midst_end_well(tmp_path: Path) -> None:
    with configured(tmp_path) as (daemon, file, text), listen(daemon.port, "*") as client:
        other = text + "\n[channels.ethprice]\nenabled = false\n[connectors.binance]\nlevels = 5\n"
        for turn in range(40):
            file.write_text(other if turn % 2 else text)
            daemon.process.send_signal(signal.SIGHUP)
            time.sleep(0.02)
        daemon.process.send_signal(signal.SIGTERM)
        for _ in client:
            pass
        assert client.close_code == 1001
        assert daemon.wait() == 0
    assert not any("Traceback" in line for line in daemon.lines), daemon.lines


def test_a_terminal_that_is_closed_stops_a_daemon_in_the_foreground(tmp_path: Path) -> None:
    file = tmp_path / "tickerd.toml"
    with tickerd("simulate", "--config-out", str(file)) as venues:
        assert venues.port
        file.write_text(file.read_text() + "\n[server]\nport = 0\n")
        master, terminal = os.openpty()
        command = [sys.executable, "-m", "daemon", "run", "--config", str(file)]
        with subprocess.Popen(
            command, stdin=terminal, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, start_new_session=True
        ) as process:
            os.close(terminal)
            assert process.stdout is not None
            assert process.stdout.readline().startswith(b"listening")
            os.close(master)
            process.send_signal(signal.SIGHUP)
            assert process.wait(SOON_S) == 0


def test_a_failed_reload_is_seen_by_whoever_looks_until_a_good_one(tmp_path: Path) -> None:
    def wait_told(port: int, reason: str, failed: str) -> None:
        deadline = time.monotonic() + SOON_S
        seen: object = None
        while seen != (reason, [failed]):
            assert time.monotonic() < deadline, seen
            ready = httpx.get(f"http://127.0.0.1:{port}/readyz")
            assert (ready.status_code, json.loads(ready.content)["ready"]) == (200, True), "clients are served"
            lines = httpx.get(f"http://127.0.0.1:{port}/metrics").text.splitlines()
            name = "tickerd_config_reload_failed "
            seen = (
                json.loads(ready.content).get("reason", ""),
                [line.removeprefix(name) for line in lines if line.startswith(name)],
            )
            time.sleep(0.1)

    old = "the last reload of the configuration failed, and the one before it is in force"
    with configured(tmp_path) as (daemon, file, text):
        wait_told(daemon.port, "", "0.0")
        reload(daemon, file, text + "\n[limits]\nclients = -1\n", said="not reloaded")
        wait_told(daemon.port, old, "1.0")
        reload(daemon, file, text)
        wait_told(daemon.port, "", "0.0")
        (tmp_path / "prose.pem").write_text("no certificate")
        pem = str(tmp_path / "prose.pem")
        reload(daemon, file, f"{text}\ncertificate = {pem!r}\nkey = {pem!r}\n", said="not reloaded")
        wait_told(daemon.port, old, "1.0")


def test_presets_come_and_go(tmp_path: Path) -> None:
    with configured(tmp_path) as (daemon, file, text):

        def with_presets(*names: str) -> str:
            return text.replace("[catalogue]\n", f"[catalogue]\npresets = {list(names)}\n")

        more = with_presets("seed", "okx", "kraken", "market")
        assert reload(daemon, file, more).endswith("venues that began anew: okx, kraken")
        with listen(daemon.port, "okx_trades", "market_quotes") as websocket:
            until(websocket, type="trade", connector_id="okx_trades")
            best = until(websocket, type="consolidated_quote", connector_id="market_quotes", instrument="BTC/USDT")
            assert [each["exchange"] for each in best["data"]["venues"]] == ["okx", "kraken"]
            less = with_presets("seed", "kraken", "market")
            assert reload(daemon, file, less).endswith("venues that began anew: okx")
            until(websocket, type="status", channel="okx_trades", state="down", reason="taken out of the configuration")
            best = until(websocket, type="consolidated_quote", connector_id="market_quotes", instrument="BTC/USDT")
            assert reload(daemon, file, text).endswith("venues that began anew: kraken")
            until(websocket, type="status", channel="market_quotes", state="down")
        assert states(daemon.port).keys() == {*preset_channels(["seed"])}
