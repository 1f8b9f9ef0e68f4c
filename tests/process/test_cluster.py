"""Whole nodes, as processes: killed, stopped, restarted, and behind the proxy that the document shows."""

import json
import os
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection, connect

from tests.cluster_soak.nodes import NodeProcess, Venues
from tests.engine import PASSWORD, RedisServer, free_port
from tests.process.fenced import only, replaced
from tests.process.running import COMMAND
from tests.process.test_proxy import program

SOON_S = 30.0
CHANNELS = ["bitcoinprice", "ethprice", "okx_trades", "okx_depth", "okx_quotes"]
TWO_WORKERS = """
[server]
workers = 2
"""
PUSHED = """
[limits]
grace_s = 4
"""


@pytest.fixture(scope="module")
def venues(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Venues]:
    simulated = Venues(tmp_path_factory.mktemp("venues"), "--okx-rate", "20")
    simulated.start()
    yield simulated
    simulated.kill()


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[RedisServer]:
    server = RedisServer(tmp_path / "engine").start()
    yield server
    server.kill()


@contextmanager
def running(*nodes: NodeProcess) -> Iterator[None]:
    """These nodes, which have all found their place; they are gone afterwards."""
    try:
        for node in nodes:
            node.start()
            node.wait("leads", "follows", "stands by")
        yield
    finally:
        for node in nodes:
            node.kill()


class Reader:
    """A client that takes everything of some channels, and comes back wherever it is told to."""

    def __init__(self) -> None:
        self.epoch, self.position = "", 0
        self.trades: dict[str, list[int]] = {}
        self.recovered: list[dict[str, bool]] = []
        self.said: list[dict[str, Any]] = []
        self.last: dict[tuple[str, str], int] = {}
        self.node = ""
        self.connection: ClientConnection

    @contextmanager
    def at(self, port: int) -> Iterator[ClientConnection]:
        """Connected to the node at that port, subscribed from where it was."""
        with connect(f"ws://127.0.0.1:{port}/ws", max_size=None) as connection:
            self.node = json.loads(connection.recv(timeout=SOON_S))["server"]["node"]
            command: dict[str, Any] = {"type": "subscribe", "channels": CHANNELS, "id": 1}
            if self.epoch:
                command["since"] = {"epoch": self.epoch, "seq": self.position}
            connection.send(json.dumps(command))
            yield connection

    def read(self, connection: ClientConnection, for_s: float) -> None:
        """Take what comes in that time, or until the connection ends."""
        until_s = time.monotonic() + for_s
        while (left_s := until_s - time.monotonic()) > 0:
            try:
                self.take(json.loads(connection.recv(timeout=left_s)))
            except TimeoutError:
                return

    def take(self, message: dict[str, Any]) -> None:
        if message["type"] == "subscribed":
            if "recovered" in message:
                self.recovered.append(message["recovered"])
            else:
                self.position = message["seq"]
            self.epoch = message["epoch"]
        elif "connector_id" not in message:
            self.said.append(message)
        elif not message.get("through"):
            topic, seq = (message["connector_id"], message["instrument"]), message["seq"]
            assert self.last.get(topic, message["prev_seq"]) == message["prev_seq"], f"a hole of {topic} before {seq}"
            self.last[topic] = seq
            self.position = max(self.position, seq)
            if message["type"] == "trade":
                self.trades.setdefault(message["instrument"], []).append(int(message["trade_id"]))


def test_over_a_kill_of_the_leader_a_warm_stand_by_leaves_out_no_trade(
    tmp_path: Path, venues: Venues, engine: RedisServer
) -> None:
    one, two = (NodeProcess(tmp_path, name, venues, engine.url, PUSHED, standby="warm") for name in ("one", "two"))
    three = NodeProcess(tmp_path, "three", venues, engine.url, PUSHED, role="serve")
    reader = Reader()
    with running(one, two, three), reader.at(three.port) as connection:
        assert reader.node == "three"
        reader.read(connection, 5)
        one.kill()
        two.wait("leads", within_s=8)
        reader.read(connection, 5)
        assert {each["node"]: each["state"] for each in three.get("/cluster").json()["nodes"]} == {
            "one": "gone",
            "two": "leads",
            "three": "follows",
        }
        gaps = three.get("/gaps").json()["gaps"]
    assert [gap["reason"] for gap in gaps if gap["cause"] == "cluster"] == [
        "node two took over, and goes on with the tape"
    ]
    assert reader.trades
    for instrument, ids in reader.trades.items():
        assert ids == list(range(ids[0], ids[0] + len(ids))), f"{instrument}: each once, and none left out"
    assert {message["state"] for message in reader.said if message["type"] == "status"} == {"live"}


def test_clients_of_a_killed_node_go_on_at_another_one(tmp_path: Path, venues: Venues, engine: RedisServer) -> None:
    one, two = (NodeProcess(tmp_path, name, venues, engine.url, PUSHED) for name in ("one", "two"))
    three = NodeProcess(tmp_path, "three", venues, engine.url, PUSHED, role="serve")
    reader = Reader()
    with running(one, two, three):
        with reader.at(three.port) as connection:
            reader.read(connection, 2)
            three.kill()
            with pytest.raises(ConnectionClosed):
                reader.read(connection, SOON_S)
        with reader.at(two.port) as connection:
            reader.read(connection, 2)
        # One that stops says so, and hands over at once though the lease would last.
        with reader.at(one.port) as connection:
            reader.read(connection, 1)
            one.send(signal.SIGTERM)
            with pytest.raises(ConnectionClosed):
                reader.read(connection, SOON_S)
        assert one.process is not None
        assert one.process.wait(20) == 0
        [goodbye] = [message for message in reader.said if message["type"] == "goodbye"]
        assert goodbye["reason"] == "the node is stopping"
        two.wait("leads", within_s=5)
        with reader.at(two.port) as connection:
            reader.read(connection, 3)
        three.start()
        three.wait("follows")
        with reader.at(three.port) as connection:
            reader.read(connection, 2)
    assert len(reader.recovered) == 4
    assert all(all(told.values()) for told in reader.recovered), reader.recovered


def test_an_engine_that_goes_away_is_told_to_clients_who_stay(
    tmp_path: Path, venues: Venues, engine: RedisServer
) -> None:
    one = NodeProcess(tmp_path, "one", venues, engine.url, PUSHED)
    reader = Reader()
    with running(one), reader.at(one.port) as connection:
        reader.read(connection, 2)
        engine.kill()
        reader.read(connection, 5)
        told = [message for message in reader.said if message["type"] == "status"][-1]
        assert told["state"] == "stale"
        assert told["reason"].startswith("the engine that carries the tape has not answered for 2 s: it")
        ready = one.get("/readyz")
        assert ready.status_code == 503
        assert ready.json()["reason"] == told["reason"]
        assert {channel["state"] for channel in one.get("/channels").json()["channels"]} == {"stale"}
        engine.start()
        reader.read(connection, 6)
        assert [message for message in reader.said if message["type"] == "status"][-1]["state"] == "live"
        assert one.get("/readyz").status_code == 200
    assert not reader.recovered, "it never had to come back"


def test_the_password_comes_from_outside_the_file_and_a_wrong_one_is_told(tmp_path: Path, venues: Venues) -> None:
    engine = RedisServer(tmp_path / "engine", "--requirepass", PASSWORD)
    engine.start()
    node = NodeProcess(tmp_path, "one", venues, engine.url, PUSHED)
    try:
        node._environment["TICKERD_CLUSTER__PASSWORD"] = "a-wrong-one"
        checked = check(node)
        assert "refuses the user or the password: look at [cluster] url and password" in checked
        node.start()
        give_up_s = time.monotonic() + SOON_S
        while "refuses the user or the password" not in reason(node):
            assert time.monotonic() < give_up_s, node.log.read_text()
            time.sleep(0.1)
        assert node.stop() == 0
        node._environment["TICKERD_CLUSTER__PASSWORD"] = PASSWORD
        assert "there is no tape of cluster main yet" in check(node)
        node.start()
        node.wait("leads")
        assert "cluster main has" in check(node)
    finally:
        node.kill()
        engine.kill()
    log = node.log.read_text()
    assert PASSWORD not in log
    assert "a-wrong-one" not in log
    assert "Traceback" not in log


def reason(node: NodeProcess) -> str:
    """What it says at `/readyz`."""
    try:
        return str(node.get("/readyz").json().get("reason", ""))
    except httpx.HTTPError:
        return ""


def check(node: NodeProcess) -> str:
    """What `tickerd check --online` says of its configuration."""
    command = [*COMMAND, "check", "--online", str(node.config)]
    return subprocess.run(command, env=node._environment, capture_output=True, text=True, check=False).stdout


def test_behind_the_haproxy_of_the_document_clients_come_to_a_node_that_is_ready(
    tmp_path: Path, venues: Venues, engine: RedisServer
) -> None:
    haproxy, port = program("haproxy", "haproxy"), free_port()
    proxied = 'trusted_proxies = ["127.0.0.1"]\n'
    nodes = [
        NodeProcess(tmp_path, name, venues, engine.url, f"{PUSHED}\n[server]\n{proxied}") for name in ("one", "two")
    ]
    absent = free_port()
    config = tmp_path / "haproxy.cfg"
    config.write_text(
        replaced(
            only("systemd/DEPLOYING.md", "## On several machines", "haproxy"),
            ("bind :8000", f"bind 127.0.0.1:{port}"),
            ("10.0.0.1:8000", f"127.0.0.1:{nodes[0].port}"),
            ("10.0.0.2:8000", f"127.0.0.1:{nodes[1].port}"),
            ("10.0.0.3:8000", f"127.0.0.1:{absent}"),
        )
    )
    with running(*nodes):
        proxy = subprocess.Popen([haproxy, "-db", "-f", str(config)], stderr=subprocess.PIPE)
        try:
            give_up_s = time.monotonic() + SOON_S
            while not is_ready(port):
                assert time.monotonic() < give_up_s
                time.sleep(0.1)
            time.sleep(3)  # it has looked at all three
            reader, other = Reader(), Reader()
            with reader.at(port) as connection, other.at(port):
                reader.read(connection, 0.5)
                assert {reader.node, other.node} == {"one", "two"}
            nodes[0].kill()
            for _ in range(3):
                with reader.at(port) as connection:
                    reader.read(connection, 0.5)
                    assert reader.node == "two"
            assert all(all(told.values()) for told in reader.recovered)
        finally:
            proxy.terminate()
            proxy.wait(10)
            assert proxy.stderr is not None
            proxy.stderr.close()


def is_ready(port: int) -> bool:
    """Whether a node is, through the proxy."""
    try:
        return httpx.get(f"http://127.0.0.1:{port}/readyz").status_code == 200
    except httpx.HTTPError:
        return False


def test_a_client_that_is_ahead_of_a_node_by_a_moment_is_not_told_that_it_lost_something(
    tmp_path: Path, venues: Venues, engine: RedisServer
) -> None:
    one = NodeProcess(tmp_path, "one", venues, engine.url, PUSHED)
    reader = Reader()
    with running(one):
        with reader.at(one.port) as connection:
            reader.read(connection, 1)
        reader.last = {}
        reader.position = one.get("/healthz").json()["seq"] + 20  # another node has shown these already
        with reader.at(one.port) as connection:
            reader.read(connection, 4)
    assert [set(told.values()) for told in reader.recovered] == [{True}]


@contextmanager
def at_both(node: NodeProcess) -> Iterator[list[Reader]]:
    """A client at each of the two workers of a node, with a connection that is its own."""
    found: dict[int, Reader] = {}
    with ExitStack() as stack:
        before = clients_of(node)
        while len(found) < 2:
            reader = Reader()
            reader.connection = stack.enter_context(reader.at(node.port))
            now = clients_of(node)
            [worker] = now - before
            found.setdefault(worker, reader)
            before = now
        yield [found[1], found[2]]


def workers_of(node: NodeProcess) -> list[dict[str, Any]]:
    [told] = [each for each in node.get("/cluster").json()["nodes"] if each["node"] == node.name]
    found: list[dict[str, Any]] = told["workers"]
    return found


def clients_of(node: NodeProcess) -> Counter[int]:
    return Counter({each["worker"]: each["clients"] for each in workers_of(node)})


def states(reader: Reader) -> list[str]:
    return [message["state"] for message in reader.said if message["type"] == "status"]


def test_a_node_may_have_workers(tmp_path: Path, venues: Venues, engine: RedisServer) -> None:
    one = NodeProcess(tmp_path, "one", venues, engine.url, PUSHED + TWO_WORKERS)
    two = NodeProcess(tmp_path, "two", venues, engine.url, PUSHED + TWO_WORKERS, role="serve")
    with running(one, two):
        # A client of either node and any worker goes on at any other one.
        hopper = Reader()
        for node in (one, two, one, two, two):
            with hopper.at(node.port) as connection:
                hopper.read(connection, 1)
        assert all(all(told.values()) for told in hopper.recovered), hopper.recovered
        assert len(hopper.recovered) == 4
        with at_both(two) as readers:
            for reader in readers:
                reader.read(reader.connection, 1)
            assert [set(states(reader)) for reader in readers] == [{"live"}, {"live"}]
            clients = sum(clients_of(two).values())
            answer = httpx.post(f"http://127.0.0.1:{one.port}/ws/test", json={"message": "to all"})
            assert answer.status_code == 200
            # The other node hears of them once a second.
            wait_until(lambda: [each["clients"] for each in nodes(one) if each["node"] == "two"] == [clients])
            # From before the tape: each node asks the venue by itself.
            before_ms = int(time.time() * 1000) - 3 * 86_400_000
            path = f"/history/okx_candles?instrument=BTC/USDT&limit=5&before_ms={before_ms}"
            charts = [node.get(path, SOON_S).json()["messages"] for node in (one, two, two, two)]
            for chart in charts:
                for candle in chart:
                    del candle["received_ms"], candle["timestamp"]  # each node asked in its own time
            assert len(charts[0]) == 5
            assert charts == charts[:1] * len(charts)
            metrics = two.get("/metrics").text
            assert 'tickerd_worker_ready{worker="2"} 1.0' in metrics
            assert "tickerd_cluster_cut_off 0.0" in metrics
            # The engine is away: the clients of all workers are told, and stay.
            engine.kill()
            for reader in readers:
                reader.read(reader.connection, 4)
                assert states(reader)[-1] == "stale"
                assert [each["message"] for each in reader.said if each["type"] == "test"] == ["to all"]
            assert two.get("/readyz").status_code == 503
            assert two.get("/readyz").json()["reason"].startswith("the engine that carries the tape has not answered")
            with Reader().at(two.port) as late:
                message: dict[str, Any] = {}
                while message.get("type") != "status":
                    message = json.loads(late.recv(timeout=SOON_S))
                assert message["state"] == "stale"
            engine.start()
            for reader in readers:
                reader.read(reader.connection, 5)
                assert states(reader)[-1] == "live"
            assert two.get("/readyz").status_code == 200
            # A worker is killed: its clients go on at the other one.
            os.kill(workers_of(two)[0]["pid"], signal.SIGKILL)
            with pytest.raises(ConnectionClosed):
                readers[0].read(readers[0].connection, 5)
            with readers[0].at(two.port) as connection:
                readers[0].read(connection, 1)
            assert [set(told.values()) for told in readers[0].recovered] == [{True}]
            readers[1].read(readers[1].connection, 1)
        wait_until(lambda: [each["ready"] for each in workers_of(two)] == [True, True])
        # The node that leads has it in the ledger of all.
        said = "worker 1 was killed by SIGKILL, and was started again; its clients could go on at others at once"
        wait_until(lambda: said in [gap["reason"] for gap in one.get("/gaps").json()["gaps"]])
        assert [each["restarts"] for each in workers_of(two)] == [1, 0]
        assert two.stop() == 0
        assert one.stop() == 0


def test_where_another_tape_begins_all_workers_begin_anew_and_clients_are_told(
    tmp_path: Path, venues: Venues, engine: RedisServer
) -> None:
    one = NodeProcess(tmp_path, "one", venues, engine.url, PUSHED)
    two = NodeProcess(tmp_path, "two", venues, engine.url, PUSHED + TWO_WORKERS, role="serve")
    with running(one, two):
        with at_both(two) as readers:
            for reader in readers:
                reader.read(reader.connection, 1)
            pids = [each["pid"] for each in workers_of(two)]
            one.kill()
            engine.kill()
            engine.start()
            one.start()
            for reader in readers:
                with pytest.raises(ConnectionClosed) as closed:
                    reader.read(reader.connection, SOON_S)
                assert closed.value.rcvd is not None
                assert (closed.value.rcvd.code, closed.value.rcvd.reason) == (
                    1001,
                    "another tape was begun in the engine",
                )
                assert [each["type"] for each in reader.said].count("goodbye") == 1
        for reader in readers:
            epoch = reader.epoch
            reader.last = {}
            with reader.at(two.port) as connection:
                reader.read(connection, 3)
            assert reader.epoch != epoch
            assert [set(told.values()) for told in reader.recovered] == [{False}]
            assert states(reader)[-1] == "live"
        assert not set(pids) & {each["pid"] for each in workers_of(two)}
        assert [each["restarts"] for each in workers_of(two)] == [0, 0], "they were told to"
        # One that hangs is not waited for.
        before = two.cluster()["epoch"]
        os.kill(workers_of(two)[1]["pid"], signal.SIGSTOP)
        one.kill()
        engine.kill()
        engine.start()
        one.start()
        wait_until(lambda: two.cluster().get("epoch") not in (None, before))
        wait_until(lambda: [each["ready"] for each in workers_of(two)] == [True, True])
        assert "worker 2 did not send its clients away within 4 s" in two.log.read_text()


def wait_until(holds: Callable[[], bool]) -> None:
    give_up_s = time.monotonic() + SOON_S
    while not holds():
        assert time.monotonic() < give_up_s
        time.sleep(0.1)


def nodes(node: NodeProcess) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = node.get("/cluster").json()["nodes"]
    return found


def test_a_node_that_only_takes_data_in_has_no_clients_and_its_reload_reaches_those_of_others(
    tmp_path: Path, venues: Venues, engine: RedisServer
) -> None:
    one = NodeProcess(tmp_path, "one", venues, engine.url, PUSHED, role="ingest")
    two = NodeProcess(tmp_path, "two", venues, engine.url, PUSHED, role="serve")
    reader = Reader()
    with running(one, two):
        with pytest.raises(InvalidStatus) as refused, reader.at(one.port):
            pass
        assert refused.value.response.status_code == 503
        with reader.at(two.port) as connection:
            reader.read(connection, 1)
            assert "okx_trades" in channels(two)
            one.config.write_text(one.config.read_text().replace('"seed", "okx"', '"seed"'))
            one.send(signal.SIGHUP)
            give_up_s = time.monotonic() + SOON_S
            while "okx_trades" in channels(two):
                assert time.monotonic() < give_up_s, one.log.read_text()
                time.sleep(0.1)
            assert channels(two) == channels(one)
            # Nobody leads now: that is told to clients, who stay, and is over when the node is back.
            one.kill()
            reader.read(connection, 8)
            before = reader.position
            told = [message for message in reader.said if message["type"] == "status"]
            assert told[-1]["state"] == "stale"
            assert told[-1]["reason"] == "no node of the cluster takes data in just now"
            one.start()
            one.wait("leads")
            reader.read(connection, 6)
            assert [message for message in reader.said if message["type"] == "status"][-1]["state"] == "live"
            assert reader.position > before


def channels(node: NodeProcess) -> set[str]:
    """The channels that it has."""
    return {each["name"] for each in node.get("/channels").json()["channels"]}
