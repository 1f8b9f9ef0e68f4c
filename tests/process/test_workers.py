"""Several processes that serve clients: each says the same, and what happens to one of them is survived."""

import json
import os
import re
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import httpx
import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus, WebSocketException
from websockets.sync.client import ClientConnection, connect

from daemon.config.tokens import written_hash
from daemon.front.tokens import new_token
from tests.daemon.serving import certificate
from tests.process.running import Process, mute_client, tickerd, wait_ready
from tests.process.systemd_tool import PASS_ON

SOON_S = 20.0
SEED = {"TICKERD_CATALOGUE__PRESETS": '["seed"]'}
"""Few channels: what is tried here does not depend on how many there are."""


@contextmanager
def two_workers(*options: str, environ: dict[str, str] | None = None) -> Iterator[Process]:
    """A demo with two workers, whose channels are live."""
    with tickerd("demo", "--port", "0", "--workers", "2", *options, environ=SEED | (environ or {})) as process:
        wait_ready(process.port)
        yield process


def url(process: Process, path: str = "/ws", scheme: str = "ws") -> str:
    return f"{scheme}://127.0.0.1:{process.port}{path}"


def workers(process: Process) -> list[dict[str, Any]]:
    """Both of them, as `GET /cluster` tells."""
    report = json.loads(httpx.get(url(process, "/cluster", "http"), timeout=SOON_S).content)
    [node] = report["nodes"]
    found: list[dict[str, Any]] = node["workers"]
    assert report["clients"] == node["clients"] == sum(each["clients"] for each in found)
    return found


def eventually(so: Callable[[], bool], what: object = "", within_s: float = SOON_S) -> None:
    deadline = time.monotonic() + within_s
    while not so():
        assert time.monotonic() < deadline, what
        time.sleep(0.05)


def next_of(websocket: ClientConnection, kind: str) -> dict[str, Any]:
    """Read on to the next message of that type."""
    while True:
        message: dict[str, Any] = json.loads(websocket.recv(SOON_S))
        if message["type"] == kind:
            return message


class Client(threading.Thread):
    """Subscribes to everything, writes down what it gets and how it ended, and comes back as often as it is told."""

    def __init__(self, process: Process, lives: int = 1) -> None:
        super().__init__(daemon=True)
        self.process = process
        self.lives = lives
        self.messages: list[dict[str, Any]] = []
        self.answers: list[dict[str, Any]] = []
        self.codes: list[int] = []
        self.subscribed = threading.Event()
        self.failed = ""

    def run(self) -> None:
        try:
            for _ in range(self.lives):
                self._live()
        except (OSError, EOFError, WebSocketException) as error:
            self.failed = repr(error)

    def _live(self) -> None:
        with self._connected() as websocket:
            command: dict[str, Any] = {"type": "subscribe", "channels": ["*"]}
            last = [each for each in self.messages if "prev_seq" in each]
            if last:
                command["since"] = {"epoch": self.answers[-1]["epoch"], "seq": last[-1]["seq"]}
            websocket.send(json.dumps(command))
            try:
                for text in websocket:
                    message = json.loads(text)
                    self.messages.append(message)
                    if message["type"] == "subscribed":
                        self.answers.append(message)
                        self.subscribed.set()
            except ConnectionClosed:
                pass
            self.codes.append(websocket.close_code or 0)

    def _connected(self) -> ClientConnection:
        """A worker that has just died may have let in who connects before it is seen to be dead."""
        for left in reversed(range(10)):
            try:
                return connect(url(self.process), max_size=None, open_timeout=SOON_S)
            except (OSError, EOFError, WebSocketException):
                if not left:
                    raise
                time.sleep(0.1)
        raise AssertionError("the last try returns or raises")

    def lost(self) -> list[dict[str, Any]]:
        """Messages whose predecessor in their topic it never had."""
        newest: dict[tuple[str, str], int] = {}
        found: list[dict[str, Any]] = []
        for message in self.messages:
            if "prev_seq" in message:
                topic = message["connector_id"], message.get("instrument", "")
                if newest.get(topic, message["prev_seq"]) != message["prev_seq"]:
                    found.append(message)
                # A keyframe stands for what it goes up to.
                newest[topic] = message.get("through", message["seq"])
        return found


def crowd(process: Process, count: int, lives: int = 1) -> list[Client]:
    """So many clients, at both workers."""
    clients = [Client(process, lives) for _ in range(count)]
    for client in clients:
        client.start()
    for client in clients:
        assert client.subscribed.wait(SOON_S), client.failed
    spread = [each["clients"] for each in workers(process)]
    assert sum(spread) == count
    assert min(spread) > 0, f"by chance one of two workers has no client of {count}: one in {2 ** (count - 1)}"
    return clients


@pytest.fixture(scope="module")
def demo() -> Iterator[Process]:
    """One daemon for all tests that leave it as it was."""
    with two_workers(environ={"TICKERD_CATALOGUE__PRESETS": '["seed", "okx"]'}) as process:
        yield process


def opened(process: Process, stack: ExitStack) -> list[ClientConnection]:
    """A websocket at each worker."""
    found: dict[int, ClientConnection] = {}
    before = Counter({each["worker"]: each["clients"] for each in workers(process)})
    for _ in range(40):
        websocket = stack.enter_context(connect(url(process), max_size=None))
        now = Counter({each["worker"]: each["clients"] for each in workers(process)})
        [worker] = now - before
        found.setdefault(worker, websocket)
        if len(found) == 2:
            return [found[1], found[2]]
        before = now
    raise AssertionError("of 40 connections all came to one worker")


def test_every_worker_says_the_same(demo: Process) -> None:
    with ExitStack() as stack:
        both = opened(demo, stack)
        welcomes = [next_of(websocket, "welcome") for websocket in both]
        for name in ("epoch", "channels", "server", "heartbeat_s"):
            assert welcomes[0][name] == welcomes[1][name]
        assert welcomes[0]["server"]["node"] == socket.gethostname()
        # One message, byte for byte and with the same position, whichever worker it comes by.
        seen: list[dict[int, bytes]] = []
        for websocket in both:
            websocket.send('{"type":"subscribe","channels":["okx_ticker","bitcoinprice","ethprice"]}')
        for websocket in both:
            next_of(websocket, "subscribed")
            texts = [str(websocket.recv(SOON_S)).encode() for _ in range(40)]
            seen.append({json.loads(text)["seq"]: text for text in texts if b'"prev_seq"' in text})
        common = seen[0].keys() & seen[1].keys()
        assert len(common) > 10
        assert all(seen[0][seq] == seen[1][seq] for seq in common)


def test_the_plain_routes_answer_at_every_worker(demo: Process) -> None:
    paths = ("/healthz", "/readyz", "/channels", "/gaps", "/snapshot/bitcoinprice", "/history/bitcoinprice", "/metrics")
    for path in (*paths, "/asyncapi.json", "/", "/cluster"):
        # Each by a connection of its own, so that both workers are asked.
        answers = [httpx.get(url(demo, path, "http"), timeout=SOON_S) for _ in range(8)]
        assert {answer.status_code for answer in answers} == {200}, path
    gaps = [httpx.get(url(demo, "/gaps", "http")).json()["gaps"] for _ in range(8)]
    assert all(answer == gaps[0] for answer in gaps)


def test_every_worker_has_candles_from_before_the_tape(demo: Process) -> None:
    # The parent asks the venue.
    before_ms = int(time.time() * 1000) - 3 * 86_400_000
    path = f"/history/okx_candles?instrument=BTC/USDT&limit=5&before_ms={before_ms}"
    answers = [httpx.get(url(demo, path, "http"), timeout=SOON_S).json() for _ in range(8)]
    assert len(answers[0]["messages"]) == 5
    assert all(answer["messages"] == answers[0]["messages"] for answer in answers)
    assert [each["restarts"] for each in workers(demo)] == [0, 0]


def test_a_position_of_one_worker_is_good_at_the_other(demo: Process) -> None:
    with ExitStack() as stack:
        one, other = opened(demo, stack)
        one.send('{"type":"subscribe","channels":["bitcoinprice"]}')
        epoch = next_of(one, "subscribed")["epoch"]
        position = next_of(one, "price_update")["seq"]
        later = [next_of(one, "price_update")["seq"] for _ in range(5)]
        since = {"epoch": epoch, "seq": position}
        other.send(json.dumps({"type": "subscribe", "channels": ["bitcoinprice"], "since": since}))
        assert next_of(other, "subscribed")["recovered"] == {"bitcoinprice": True}
        assert [next_of(other, "price_update")["seq"] for _ in range(5)] == later


def test_a_client_that_is_ahead_of_a_worker_by_a_moment_is_not_told_that_it_lost_something(demo: Process) -> None:
    with connect(url(demo), max_size=None) as websocket:
        epoch = next_of(websocket, "welcome")["epoch"]
        # Another worker has shown these already.
        since = {"epoch": epoch, "seq": httpx.get(url(demo, "/healthz", "http")).json()["seq"] + 5}
        websocket.send(json.dumps({"type": "subscribe", "channels": ["okx_ticker"], "since": since}))
        assert next_of(websocket, "subscribed")["recovered"] == {"okx_ticker": True}


def test_a_test_message_reaches_the_clients_of_all_workers(demo: Process) -> None:
    with ExitStack() as stack:
        both = opened(demo, stack)
        count = sum(each["clients"] for each in workers(demo))
        answer = httpx.post(url(demo, "/ws/test", "http"), json={"message": "to all"})
        assert (answer.status_code, answer.json()["clients"]) == (200, count)
        assert [next_of(websocket, "test")["message"] for websocket in both] == ["to all", "to all"]


def test_metrics_have_each_series_once_and_count_the_clients_of_all(demo: Process) -> None:
    with ExitStack() as stack:
        opened(demo, stack)
        time.sleep(1.1)  # figures are good for a second
        text = httpx.get(url(demo, "/metrics", "http")).text
        series = [line.rpartition(" ") for line in text.splitlines() if not line.startswith("#")]
        names = Counter(name for name, _, _ in series)
        assert [name for name, count in names.items() if count > 1] == []
        families = Counter(line.split()[2] for line in text.splitlines() if line.startswith("# TYPE"))
        assert [name for name, count in families.items() if count > 1] == []
        found = {name: float(value) for name, _, value in series}
        count = sum(each["clients"] for each in workers(demo))
        assert found['tickerd_clients{format="json"}'] == count
        assert found["tickerd_clients_max"] == 10_000
        assert found["tickerd_accepting"] == 1
        by_worker = [found[f'tickerd_worker_clients{{worker="{number}"}}'] for number in (1, 2)]
        assert sum(by_worker) == count
        assert {f'process_cpu_seconds_total{{worker="{number}"}}' for number in (1, 2)} < found.keys()
        assert found['tickerd_channel_state{channel="bitcoinprice",state="live"}'] == 1


def test_a_workers_lines_of_the_log_say_which_it_is(demo: Process) -> None:
    with connect(url(demo)):
        pass
    eventually(lambda: any(re.search(r": worker [12]: client 127\.0\.0\.1 connected", line) for line in demo.lines))


def refused_at(process: Process, most: int, headers: dict[str, str]) -> int:
    """How many are let in at once, of twice as many as may be."""
    with ExitStack() as stack:
        let_in, statuses = 0, set[int]()
        for _ in range(2 * most):
            try:
                stack.enter_context(connect(url(process), additional_headers=headers))
                let_in += 1
            except InvalidStatus as refused:
                statuses.add(refused.response.status_code)
        spread = [each["clients"] for each in workers(process)]
        assert sum(spread) == let_in
        assert statuses == {503}
    eventually(lambda: sum(each["clients"] for each in workers(process)) == 0)
    return let_in


def test_limits_hold_for_all_workers_together() -> None:
    limits = {
        "TICKERD_LIMITS__CLIENTS": "13",
        "TICKERD_LIMITS__CLIENTS_PER_ADDRESS": "7",
        "TICKERD_SERVER__TRUSTED_PROXIES": '["127.0.0.1"]',
    }
    with two_workers(environ=limits) as process:
        assert refused_at(process, 13, {}) == 13
        assert refused_at(process, 7, {"X-Forwarded-For": "203.0.113.9"}) == 7
        assert refused_at(process, 7, {"X-Forwarded-For": "2001:db8:1:2::9"}) == 7


def test_a_worker_that_is_killed_costs_nobody_anything_but_a_reconnect() -> None:
    with two_workers() as process:
        clients = crowd(process, 20, lives=2)
        victim, other = workers(process)
        os.kill(victim["pid"], signal.SIGKILL)
        eventually(lambda: sum(len(client.codes) for client in clients) == victim["clients"])
        eventually(lambda: all(each["ready"] for each in workers(process)))
        again, same = workers(process)
        assert (again["restarts"], same["restarts"], same["pid"]) == (1, 0, other["pid"])
        assert again["pid"] != victim["pid"]
        returned = [client for client in clients if client.codes]
        eventually(lambda: all(len(client.answers) == 2 for client in returned))
        time.sleep(1.0)
        for client in returned:
            assert client.answers[1]["recovered"].keys() == set(client.answers[1]["channels"])
            assert all(client.answers[1]["recovered"].values())
        assert [client.lost() for client in clients] == [[]] * len(clients)
        eventually(lambda: sum(each["clients"] for each in workers(process)) == len(clients))
        gaps = httpx.get(url(process, "/gaps", "http")).json()["gaps"]
        [told] = [gap["reason"] for gap in gaps if "worker" in gap["reason"]]
        assert told.startswith("worker 1 was killed by SIGKILL, and was started again")
        assert process.stop() == 0
    assert not any("Traceback" in line for line in process.lines), process.lines


def restarted(process: Process, times: int) -> Callable[[], bool]:
    return lambda: bool(workers(process)[0]["restarts"] == times)


def test_no_worker_is_started_again_in_the_midst_of_a_stop() -> None:
    with two_workers() as process, ExitStack() as stack:
        for _ in range(16):  # some of them at the other worker
            stack.enter_context(mute_client(process.port))
        for life in (1, 2, 3):
            eventually(lambda: workers(process)[0]["ready"])
            os.kill(workers(process)[0]["pid"], signal.SIGKILL)
            eventually(restarted(process, life))
        eventually(lambda: any("it is started again in 2 s" in line for line in process.lines), process.lines)
        began_s = time.monotonic()
        process.process.terminate()
        assert process.wait() == 0
        assert time.monotonic() - began_s > 2.0, "the stop is to last longer than the worker is to stay away"
    assert not any("Traceback" in line for line in process.lines), process.lines


def test_a_worker_that_takes_nothing_is_replaced_and_others_are_not_harmed() -> None:
    # All channels: enough to fill the link.
    presets = {"TICKERD_CATALOGUE__PRESETS": '["seed", "binance", "okx", "coinbase", "kraken", "bybit", "market"]'}
    with two_workers(environ=presets) as process:
        victim, _ = workers(process)
        clients = crowd(process, 8)
        os.kill(victim["pid"], signal.SIGSTOP)
        others = [client for client in clients if not client.codes]
        eventually(lambda: any("worker 1 was killed" in line for line in process.lines), process.lines, 45.0)
        eventually(lambda: any("worker 1 lets clients in again" in line for line in process.lines), process.lines)
        closed = [client for client in others if client.codes]
        assert 0 < len(closed) < len(clients)
        kept = [client for client in clients if not client.codes]
        before = [len(client.messages) for client in kept]
        time.sleep(1.0)
        assert all(len(client.messages) > count for client, count in zip(kept, before, strict=True))
        assert [client.lost() for client in kept] == [[]] * len(kept)
        with connect(url(process)):
            pass


def test_all_stand_still_together_and_nobody_is_blamed() -> None:
    with two_workers(environ={"TICKERD_LIMITS__PING_EVERY_S": "1", "TICKERD_LIMITS__SILENT_AFTER_S": "3"}) as process:
        clients = crowd(process, 8)
        pids = [process.process.pid, *(each["pid"] for each in workers(process))]
        for pid in pids:
            os.kill(pid, signal.SIGSTOP)
        time.sleep(5.0)
        for pid in pids:
            os.kill(pid, signal.SIGCONT)
        time.sleep(3.0)
        assert [client.codes for client in clients] == [[]] * len(clients)
        assert [client.lost() for client in clients] == [[]] * len(clients)
        assert [each["restarts"] for each in workers(process)] == [0, 0]
        gaps = httpx.get(url(process, "/gaps", "http")).json()["gaps"]
        assert len([gap for gap in gaps if gap["cause"] == "pause"]) == 1, gaps


def ended(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except FileNotFoundError:
        return True


def is_refused(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port)).close()
    except ConnectionRefusedError:
        return True
    except ConnectionResetError:  # it was closed just then
        pass
    return False


def test_a_parent_that_hangs_is_told_to_the_clients_of_its_workers_who_stay() -> None:
    with two_workers() as process, connect(url(process), max_size=None) as websocket:
        websocket.send('{"type":"subscribe","channels":["bitcoinprice"]}')
        assert next_of(websocket, "status")["state"] == "live"
        process.process.send_signal(signal.SIGSTOP)
        try:
            told = next_of(websocket, "status")
            assert (told["state"], told["reason"]) == (
                "stale",
                "the process that takes data in has said nothing for 3 s",
            )
        finally:
            process.process.send_signal(signal.SIGCONT)
        assert next_of(websocket, "status")["state"] == "live"
        assert next_of(websocket, "price_update")["price"]
        assert [each["restarts"] for each in workers(process)] == [0, 0]


def test_workers_end_with_their_parent() -> None:
    with two_workers() as process:
        pids = [each["pid"] for each in workers(process)]
        os.kill(pids[0], signal.SIGSTOP)
        process.process.kill()
        eventually(lambda: ended(pids[1]), within_s=2.0)
        os.kill(pids[0], signal.SIGCONT)
        eventually(lambda: ended(pids[0]), within_s=2.0)
        # The kernel may still be closing what the dead had open.
        eventually(lambda: is_refused(process.port), within_s=5.0)


def test_sigterm_says_goodbye_to_the_clients_of_all_workers() -> None:
    with two_workers() as process:
        clients = crowd(process, 30)
        pids = [each["pid"] for each in workers(process)]
        began_s = time.monotonic()
        assert process.stop(signal.SIGTERM) == 0
        assert time.monotonic() - began_s < 10
        assert all(map(ended, pids))
        for client in clients:
            client.join(5)
        assert [client.codes for client in clients] == [[1001]] * len(clients)
        goodbyes = [client.messages[-1] for client in clients]
        assert {goodbye["type"] for goodbye in goodbyes} == {"goodbye"}
        assert max(goodbye["retry_after_s"] for goodbye in goodbyes) <= len(clients) / 200
        assert [client.lost() for client in clients] == [[]] * len(clients)
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", process.port))
    assert not any("Traceback" in line for line in process.lines), process.lines


@contextmanager
def on_a_terminal(*arguments: str, environ: dict[str, str]) -> Iterator[subprocess.Popen[str]]:
    """A daemon with a group of processes of its own, as a shell starts it."""
    process = subprocess.Popen(
        [sys.executable, "-m", "daemon", *arguments],
        env={**os.environ, **environ},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    try:
        yield process
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate(timeout=5)


def listening(process: subprocess.Popen[str]) -> int:
    assert process.stdout is not None
    for line in process.stdout:
        if found := re.fullmatch(r"listening on http://127\.0\.0\.1:(\d+)\n", line):
            return int(found[1])
    raise AssertionError("it does not listen")


def test_ctrl_c_reaches_all_processes_and_is_one_orderly_stop() -> None:
    with on_a_terminal("demo", "--port", "0", "--workers", "2", environ=SEED) as process:
        port = listening(process)
        with connect(f"ws://127.0.0.1:{port}/ws") as websocket:
            next_of(websocket, "welcome")
            os.killpg(process.pid, signal.SIGINT)
            assert next_of(websocket, "goodbye")["code"] == 1001
            assert process.wait(15) == 0


def test_a_second_ctrl_c_ends_all_at_once() -> None:
    with on_a_terminal("demo", "--port", "0", "--workers", "2", environ=SEED) as process:
        port = listening(process)
        with mute_client(port):
            report = httpx.get(f"http://127.0.0.1:{port}/cluster").json()
            pids = [each["pid"] for each in report["nodes"][0]["workers"]]
            os.killpg(process.pid, signal.SIGINT)
            time.sleep(0.5)
            began_s = time.monotonic()
            os.killpg(process.pid, signal.SIGINT)
            assert process.wait(15) == 1
            assert time.monotonic() - began_s < 3
            eventually(lambda: all(map(ended, pids)), within_s=2.0)


def test_a_reload_reaches_all_workers_and_a_revoked_token_closes_its_clients(tmp_path: Path) -> None:
    file = tmp_path / "tickerd.toml"
    kept, revoked = new_token(), new_token()

    def tokens(**named: str) -> str:
        return "".join(f'[tokens.{name}]\nhash = "{written_hash(token)}"\n' for name, token in named.items())

    with tickerd("simulate", "--config-out", str(file)) as venues:
        assert venues.port
        text = file.read_text() + "\n[server]\nport = 0\nhost = '127.0.0.1'\nworkers = 2\n"
        file.write_text(text + tokens(kept=kept, revoked=revoked))
        with tickerd("run", "--config", str(file)) as process, ExitStack() as stack:
            assert process.port
            asked = {"Authorization": f"Bearer {kept}"}

            def spread() -> list[int]:
                report = httpx.get(url(process, "/cluster", "http"), headers=asked).json()
                return [each["clients"] for each in report["nodes"][0]["workers"]]

            assert httpx.get(url(process, "/cluster", "http")).status_code == 401
            staying, leaving = (
                [
                    stack.enter_context(connect(url(process), additional_headers={"Authorization": f"Bearer {token}"}))
                    for _ in range(12)
                ]
                for token in (kept, revoked)
            )
            assert min(spread()) > 0
            file.write_text(text + "[channels.ethprice]\nenabled = false\n" + tokens(kept=kept))
            process.process.send_signal(signal.SIGHUP)
            for websocket in leaving:
                assert next_of(websocket, "goodbye")["code"] == 1008
            eventually(lambda: any("reloaded;" in line for line in process.lines), process.lines)
            for websocket in staying:
                websocket.send('{"type":"subscribe","channels":["bitcoinprice","ethprice"]}')
                assert next_of(websocket, "subscribed")["channels"] == ["bitcoinprice"]
            for _ in range(6):
                with pytest.raises(InvalidStatus, match="401"):
                    connect(url(process), additional_headers={"Authorization": f"Bearer {revoked}"})
            eventually(lambda: sum(spread()) == 12)
            assert process.stop() == 0
    assert not any("Traceback" in line for line in process.lines), process.lines


def test_the_certificate_in_force_is_that_of_all_workers_whatever_becomes_of_its_file(tmp_path: Path) -> None:
    pem, key = certificate(tmp_path)
    trusting = ssl.create_default_context(cafile=pem)
    environ = {"TICKERD_SERVER__CERTIFICATE": str(pem), "TICKERD_SERVER__KEY": str(key)}
    with tickerd("demo", "--port", "0", "--workers", "2", environ=SEED | environ) as process:
        address = f"https://127.0.0.1:{process.port}/cluster"

        def found() -> list[dict[str, Any]]:
            report = httpx.get(address, verify=trusting, timeout=SOON_S).json()
            workers: list[dict[str, Any]] = report["nodes"][0]["workers"]
            return workers

        pem.write_text("no certificate")
        os.kill(found()[0]["pid"], signal.SIGKILL)
        eventually(lambda: found()[0]["restarts"] == 1 and found()[0]["ready"], process.lines)
        for _ in range(8):
            assert httpx.get(address, verify=trusting, timeout=SOON_S).status_code == 200


def received(manager: socket.socket) -> list[bytes]:
    """All that waits there."""
    manager.setblocking(False)
    found: list[bytes] = []
    with suppress(BlockingIOError):
        while True:
            found.append(manager.recv(65536))
    return found


def test_all_workers_accept_from_a_socket_that_was_passed_and_systemds_watchdog_hears_of_all(tmp_path: Path) -> None:
    address = str(tmp_path / "notify")
    with (
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager,
        socket.create_server(("127.0.0.1", 0), backlog=256) as held,
        (tmp_path / "said").open("w") as said,
    ):
        manager.bind(address)
        manager.settimeout(SOON_S)
        environ = {**os.environ, **SEED, "NOTIFY_SOCKET": address, "WATCHDOG_USEC": "4000000"}
        process = subprocess.Popen(
            [sys.executable, "-c", PASS_ON, str(held.fileno()), "demo", "--workers", "2"],
            pass_fds=[held.fileno()],
            env=environ,
            stdout=subprocess.DEVNULL,
            stderr=said,
        )
        try:
            while b"READY=1" not in manager.recv(65536):
                pass
            port = held.getsockname()[1]
            with ExitStack() as stack:
                for _ in range(40):
                    stack.enter_context(connect(f"ws://127.0.0.1:{port}/ws"))
                report = httpx.get(f"http://127.0.0.1:{port}/cluster").json()
                found = report["nodes"][0]["workers"]
                assert sum(each["clients"] for each in found) == 40
                assert min(each["clients"] for each in found) > 0
                for _ in range(2):
                    while manager.recv(65536) != b"WATCHDOG=1":
                        pass
                # A worker that stands still is not well, and so nobody says that all is.
                os.kill(found[0]["pid"], signal.SIGSTOP)
                time.sleep(1.5)
                received(manager)
                time.sleep(2.0)
                assert b"WATCHDOG=1" not in received(manager)
                os.kill(found[0]["pid"], signal.SIGCONT)
                manager.settimeout(SOON_S)
                while manager.recv(65536) != b"WATCHDOG=1":
                    pass
            with mute_client(port):
                # The stop takes longer than from one canary to the next.
                process.terminate()
                assert process.wait(20) == 0, (tmp_path / "said").read_text()
        finally:
            if process.poll() is None:
                process.kill()
            process.wait(5)


def test_a_worker_that_never_lets_clients_in_is_one_clear_line(tmp_path: Path) -> None:
    # A worker's interpreter ends before it has done anything; the parent's does not.
    code = "import os, sys\nif 'daemon.workers' in sys.orig_argv:\n    os._exit(3)\n"
    (tmp_path / "sitecustomize.py").write_text(code)
    with tickerd("demo", "--port", "0", "--workers", "2", environ=SEED | {"PYTHONPATH": str(tmp_path)}) as process:
        assert process.wait() == 1
    told = [line for line in process.lines if "the daemon cannot start: " in line]
    assert told, process.lines
    assert re.search(r"worker [12] ended with exit code 3 before it let clients in", told[0])
    assert not any("Traceback" in line for line in process.lines), process.lines


def test_a_port_that_other_workers_share_is_in_use(demo: Process) -> None:
    with tickerd("demo", "--port", str(demo.port), "--workers", "2") as process:
        assert process.wait() == 1
    complaint = [line for line in process.lines if line.startswith("tickerd: ")]
    assert len(complaint) == 1, process.lines
    assert f"{demo.port} is in use" in complaint[0]
