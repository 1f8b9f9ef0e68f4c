"""Faults of HTTP answers as they are on the wire: byte by byte in memory, resets on real sockets."""

import gzip
import json
from collections.abc import Callable
from typing import Any

import pytest
import trio
import trio.testing

from connectors.simulator.faults.answers import HTML, TLS_ALERT
from connectors.simulator.simulator import Simulator
from tests.connectors.push.raw_venue import http, in_memory, on_a_port, order

TICKERS = '/api/v3/ticker/24hr?symbols=["BTCUSDT","ETHUSDT"]'
GLOBAL = "/api/v3/global"
DEPTH = "/api/v3/depth?symbol=BTCUSDT"
TARGETS = {"binance": TICKERS, "coingecko": GLOBAL}


def unpacked(body: bytes) -> int:
    """How many bytes it unpacks to."""
    return len(gzip.decompress(body))


def clock() -> float:
    """Wall-clock time that jumps along."""
    return 1_800_000_000 + trio.current_time()


class Answer:
    """What came: the head's parts, the body's bytes, and whether the connection ended."""

    def __init__(self, data: bytes, *, ended: bool) -> None:
        head, _, self.body = data.partition(b"\r\n\r\n")
        lines = head.decode("latin-1").split("\r\n")
        self.raw, self.ended = data, ended
        self.status = int(lines[0].split()[1]) if lines[0].startswith("HTTP/1.1 ") else 0
        pairs = (line.partition(": ") for line in lines[1:])
        self.headers = {name.lower(): value for name, _, value in pairs}

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def missing(self) -> int:
        return int(self.headers["content-length"]) - len(self.body)


async def get(connect: Callable[[], trio.abc.Stream], target: str, headers: str = "", wait_s: float = 60) -> Answer:
    """Everything that comes within a time; a kept connection goes quiet when its answer is there."""
    stream = connect()
    quoted = target.replace('"', "%22")
    await stream.send_all(f"GET {quoted} HTTP/1.1\r\nHost: x\r\nUser-Agent: a test\r\n{headers}\r\n".encode())
    data, ended = b"", False
    with trio.move_on_after(wait_s):
        async for chunk in stream:
            data += chunk
        ended = True
    await stream.aclose()
    return Answer(data, ended=ended)


async def assert_healthy(connect: Callable[[], trio.abc.Stream]) -> None:
    for target in (TICKERS, GLOBAL, DEPTH):
        answer = await get(connect, target)
        assert (answer.status, answer.missing, answer.ended) == (200, 0, False)
        assert answer.json
        assert answer.headers["content-type"].startswith("application/json")


@pytest.mark.parametrize("venue", ["binance", "coingecko"])
@pytest.mark.parametrize("status", [403, 429, 451, 500, 503])
@pytest.mark.parametrize("retry_after_s", [None, 7])
async def test_a_status_with_and_without_a_time(
    autojump_clock: trio.testing.MockClock, venue: str, status: int, retry_after_s: int | None
) -> None:
    simulator = Simulator(clock=clock)
    async with in_memory(simulator) as connect:
        fields = {} if retry_after_s is None else {"retry_after_s": retry_after_s}
        order(simulator, fault="http_status", venue=venue, status=status, **fields)
        answer = await get(connect, TARGETS[venue])
        assert answer.status == status
        assert answer.headers.get("retry-after") == (None if retry_after_s is None else "7")
        if status == 429:
            assert answer.json["code"] == -1003 if venue == "binance" else answer.json["status"]["error_code"] == 429
        other = await get(connect, TARGETS["coingecko" if venue == "binance" else "binance"])
        assert other.status == 200
        order(simulator, clear=True)
        await assert_healthy(connect)


async def test_a_ban_says_until_when(autojump_clock: trio.testing.MockClock) -> None:
    simulator = Simulator(clock=clock)
    async with in_memory(simulator) as connect:
        order(simulator, fault="http_status", venue="binance", status=418, retry_after_s=5)
        assert "IP banned until 1800000005000." in (await get(connect, TICKERS)).json["msg"]


async def test_one_path_alone(autojump_clock: trio.testing.MockClock) -> None:
    simulator = Simulator(clock=clock)
    async with in_memory(simulator) as connect:
        order(simulator, fault="http_status", venue="binance", status=503, path="/api/v3/depth")
        assert [(await get(connect, target)).status for target in (DEPTH, TICKERS)] == [503, 200]


@pytest.mark.parametrize(
    ("fault", "holds"),
    [
        ({"fault": "error_body"}, lambda a: "data" not in a.json and a.body.find(b"-1003") + a.body.find(b"429") > 0),
        ({"fault": "truncated_body", "missing_bytes": 50}, lambda a: a.missing == 50 and a.ended),
        ({"fault": "garbage_body", "kind": "not_json"}, lambda a: a.missing == 0 and not is_json(a.body)),
        ({"fault": "garbage_body", "kind": "not_utf8"}, lambda a: b"\xff\xfe" in a.body),
        ({"fault": "garbage_body", "kind": "html"}, lambda a: a.body == HTML),
        ({"fault": "garbage_body", "kind": "empty"}, lambda a: a.body == b"" and a.headers["content-length"] == "0"),
        ({"fault": "huge_body", "size": 100_000}, lambda a: len(a.body) == 100_000 and a.json),
        ({"fault": "huge_numbers", "kind": "exponent"}, lambda a: b"1e400" in a.body),
        ({"fault": "bomb"}, lambda a: a.headers["content-encoding"] == "gzip" and unpacked(a.body) == 64_000_000),
        (
            {"fault": "bomb", "packed": "twice"},
            lambda a: (
                a.headers["content-encoding"] == "gzip, gzip"
                and unpacked(gzip.decompress(a.body)) == 64_000_000
                and len(a.body) < 1_000
            ),
        ),
        ({"fault": "content_type"}, lambda a: a.headers["content-type"] == "text/html" and a.json),
        ({"fault": "stale_age", "age_s": 99}, lambda a: a.headers["age"] == "99" and a.json),
        ({"fault": "reset", "after_bytes": 100}, lambda a: len(a.raw) == 100 and a.ended),
        ({"fault": "reset"}, lambda a: a.raw == b"" and a.ended),
        ({"fault": "refuse"}, lambda a: a.raw == b"" and a.ended),
        ({"fault": "tls_failure"}, lambda a: a.raw == TLS_ALERT and a.ended),
        ({"fault": "not_modified"}, lambda a: a.status == 304 and a.body == b"" and not a.ended),
        ({"fault": "wrong_types"}, lambda a: is_json(a.body)),
        ({"fault": "missing_fields"}, lambda a: is_json(a.body)),
    ],
)
@pytest.mark.parametrize("venue", ["binance", "coingecko"])
async def test_answers_that_are_wrong(
    autojump_clock: trio.testing.MockClock, venue: str, fault: dict[str, object], holds: Callable[[Answer], bool]
) -> None:
    simulator = Simulator(clock=clock)
    async with in_memory(simulator) as connect:
        right = await get(connect, TARGETS[venue])
        order(simulator, venue=venue, **fault)
        wrong = await get(connect, TARGETS[venue])
        assert wrong.status in (200, 304, 0)
        assert holds(wrong)
        assert wrong.raw != right.raw
        assert simulator._board.totals() == {venue: {str(fault["fault"]): 1}}
        order(simulator, clear=True)
        await assert_healthy(connect)


def is_json(body: bytes) -> bool:
    try:
        json.loads(body)
    except ValueError:
        return False
    return True


@pytest.mark.parametrize(("fault", "value"), [("wrong_types", 12_345), ("missing_fields", None), ("empty_strings", "")])
async def test_members_that_are_not_as_documented(
    autojump_clock: trio.testing.MockClock, fault: str, value: object
) -> None:
    simulator = Simulator(clock=clock)
    async with in_memory(simulator) as connect:
        order(simulator, fault=fault, venue="binance", field="lastPrice")
        rows = (await get(connect, TICKERS)).json
        assert [row.get("lastPrice") for row in rows] == [value] * 2
        assert all(row["symbol"] for row in rows)


async def test_a_wrong_body_does_not_hide_behind_the_right_ones_tag(autojump_clock: trio.testing.MockClock) -> None:
    simulator = Simulator(clock=clock)
    async with in_memory(simulator) as connect:
        tag = (await get(connect, GLOBAL, wait_s=1)).headers["etag"]
        condition = f"If-None-Match: {tag}\r\n"
        order(simulator, fault="missing_fields", venue="coingecko", field="data")
        wrong = await get(connect, GLOBAL, condition, wait_s=1)
        assert (wrong.status, wrong.json, "etag" in wrong.headers) == (200, {}, False)
        order(simulator, clear=True)
        assert (await get(connect, GLOBAL, condition, wait_s=1)).status == 304


async def test_slow_headers_and_slow_bodies(autojump_clock: trio.testing.MockClock) -> None:
    simulator = Simulator(clock=clock)
    async with in_memory(simulator) as connect:
        order(simulator, fault="slow_headers", venue="binance", delay_s=8)
        assert (await get(connect, DEPTH, wait_s=7.9)).raw == b""
        late = await get(connect, DEPTH, wait_s=8.1)
        assert (late.missing, late.ended) == (0, False)
        order(simulator, clear=True)
        order(simulator, fault="slow_body", venue="binance", bytes_per_s=40)
        part = await get(connect, DEPTH, wait_s=5)
        assert len(part.body) == pytest.approx(200, abs=3)
        assert not part.ended
        assert (await get(connect, DEPTH, wait_s=1_000)).json["bids"]
        order(simulator, clear=True)
        await assert_healthy(connect)


async def test_an_endless_body(autojump_clock: trio.testing.MockClock) -> None:
    simulator = Simulator(clock=clock)
    async with in_memory(simulator) as connect:
        order(simulator, fault="endless_body", venue="coingecko", bytes_per_s=100_000)
        answer = await get(connect, GLOBAL, wait_s=20)
        assert answer.headers["transfer-encoding"] == "chunked"
        assert "content-length" not in answer.headers
        assert len(answer.body) > 1_900_000
        assert not answer.ended
        order(simulator, clear=True)
        await assert_healthy(connect)


async def test_a_delisted_symbol(autojump_clock: trio.testing.MockClock) -> None:
    simulator = Simulator(clock=clock)
    async with in_memory(simulator) as connect:
        order(simulator, fault="delisted", venue="binance", instrument="BTC/USDT")
        for target in (TICKERS, DEPTH):
            answer = await get(connect, target)
            assert (answer.status, answer.json["code"]) == (400, -1121)
        assert (await get(connect, "/api/v3/ticker/24hr?symbol=ETHUSDT")).status == 200
        symbols = [row["symbol"] for row in (await get(connect, "/api/v3/ticker/price")).json]
        assert "ETHUSDT" in symbols
        assert "BTCUSDT" not in symbols
        listed = [row["symbol"] for row in (await get(connect, "/api/v3/exchangeInfo")).json["symbols"]]
        assert listed == symbols
        order(simulator, clear=True)
        await assert_healthy(connect)


async def test_clocks_that_are_wrong(autojump_clock: trio.testing.MockClock) -> None:
    simulator = Simulator(clock=clock)
    async with in_memory(simulator) as connect:
        order(simulator, fault="clock_skew", venue="binance", offset_s=3600)
        order(simulator, fault="clock_skew", venue="coingecko", offset_s=-3600)
        shifted = (await get(connect, TICKERS)).json[0]
        assert shifted["closeTime"] / 1000 - clock() == pytest.approx(3600, abs=100)
        assert shifted["closeTime"] - shifted["openTime"] == 86_400_000
        assert (await get(connect, GLOBAL)).json["data"]["updated_at"] - clock() == pytest.approx(-3600, abs=200)


async def test_a_share_of_answers_is_the_same_for_the_same_seed(autojump_clock: trio.testing.MockClock) -> None:
    async def statuses(seed: int) -> list[bytes]:
        simulator = Simulator(seed=seed, clock=clock)
        async with in_memory(simulator) as connect:
            order(simulator, fault="garbage_body", kind="empty", venue="binance", share=0.5)
            return [(await get(connect, DEPTH, wait_s=1)).body[:1] for _ in range(40)]

    first = await statuses(1)
    assert first == await statuses(1)
    assert first != await statuses(2)
    assert 8 < first.count(b"") < 32


async def read_to_the_end(stream: trio.SocketStream) -> None:
    while await stream.receive_some(100):
        pass


async def test_a_reset_is_a_reset() -> None:
    simulator = Simulator()
    async with on_a_port(simulator) as port:
        for fault in ({"fault": "refuse"}, {"fault": "reset", "after_bytes": 40}):
            order(simulator, venue="binance", times=1, **fault)
            async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
                await stream.send_all(b"GET /api/v3/time HTTP/1.1\r\nHost: x\r\n\r\n")
                with pytest.raises(trio.BrokenResourceError) as caught:
                    await read_to_the_end(stream)
                assert isinstance(caught.value.__cause__, ConnectionResetError)
            async with http(port) as client:
                assert (await client.get("/api/v3/time")).status_code == 200
