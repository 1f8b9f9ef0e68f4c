"""A search for inputs that break something: hypothesis against a running daemon, and against the session alone.

It lasts about TICKERD_FUZZ_S seconds (5, and a minute in CI), shared by the targets. It begins from the same seed each
time, so that a red run means a change; TICKERD_FUZZ_SEED begins from another one. A failure names the seed that finds
it again at once.
"""

import json
import os
import re
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import hypothesis
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from protocol.channels import Catalogue
from protocol.codes import ErrorCode
from protocol.frame_meter import FrameMeter
from protocol.messages import Error, Format, encode_as
from protocol.session import Close, CommandLimits, Effect, Join, Leave, Reply, Session
from tests.daemon.serving import CHANNELS, client_frame, handshake
from tests.process.running import Process, wait_ready

SECONDS = float(os.environ.get("TICKERD_FUZZ_S", "5"))
SEED = int(os.environ.get("TICKERD_FUZZ_SEED", "0"))
SHARES = {"bytes": 0.2, "requests": 0.25, "websockets": 0.35, "session": 0.2}

ANSWER_S = 10.0
"""When every connection whose client has said its last must have come to an end."""

NOW = "2025-12-08T16:30:45.123Z"


def search(target: str, check: Callable[..., None], *inputs: st.SearchStrategy[object]) -> None:
    """Try examples, batch by batch, until the target's share of the time is over."""
    until_s = time.monotonic() + SECONDS * SHARES[target]
    seed = SEED
    calm = settings(
        max_examples=100,
        database=None,
        derandomize=False,
        deadline=None,
        phases=(Phase.generate, Phase.shrink),
        suppress_health_check=list(HealthCheck),
    )
    while True:
        try:
            hypothesis.seed(seed)(calm(given(*inputs)(check)))()
        except BaseException as error:
            error.add_note(f"TICKERD_FUZZ_SEED={seed} finds it again")
            raise
        seed += 1
        if time.monotonic() >= until_s:
            return


# ---- against a running daemon ---------------------------------------------------------------------------------------


class Daemon:
    """One that is searched, and what must stay true of it."""

    def __init__(self, process: Process) -> None:
        self.process = process
        self._looked_at = 0

    @property
    def descriptors(self) -> int:
        """How many files and sockets it has open."""
        return len(os.listdir(f"/proc/{self.process.process.pid}/fd"))

    @property
    def memory_kib(self) -> int:
        """Its resident memory."""
        status = Path(f"/proc/{self.process.process.pid}/status").read_text()
        found = re.search(r"^VmRSS:\s+(\d+) kB$", status, re.MULTILINE)
        assert found is not None
        return int(found[1])

    def receive(self, *parts: bytes) -> bytes:
        """Send this, say that this was all, and read until the daemon has closed the connection too."""
        received = b""
        with socket.create_connection(("127.0.0.1", self.process.port), timeout=ANSWER_S) as sock:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            try:
                for part in parts:
                    sock.sendall(part)
                sock.shutdown(socket.SHUT_WR)
            except TimeoutError:
                raise
            except OSError:  # it was refused, and has not waited for the rest
                pass
            with suppress(ConnectionResetError):
                while data := sock.recv(65536):
                    received += data
        return received

    def check(self, *parts: bytes) -> bytes:
        """`receive`; the next client is served, and nothing has been logged as a failure."""
        received = self.receive(*parts)
        assert self.receive(b"GET /healthz HTTP/1.1\r\nHost: h\r\n\r\n").startswith(b"HTTP/1.1 200 ")
        lines = self.process.lines[self._looked_at :]
        self._looked_at += len(lines)
        failures = [line for line in lines if "Traceback" in line or '"level": "error"' in line or "critical" in line]
        assert failures == []
        return received


@pytest.fixture(scope="module")
def daemon() -> Iterator[Daemon]:
    """Small limits, so that they are reached; in the end it has let go of all that it was given."""
    limits = {
        "TICKERD_LIMITS__MESSAGE_BYTES": "2048",
        "TICKERD_LIMITS__HEAD_BYTES": "2048",
        "TICKERD_LIMITS__BODY_BYTES": "1024",
        "TICKERD_LIMITS__COMMANDS_PER_S": "20",
        "TICKERD_LIMITS__COMMANDS_BURST": "20",
        "TICKERD_LIMITS__HANDSHAKE_S": "2",
        "TICKERD_SERVER__TRUSTED_PROXIES": '["127.0.0.1"]',
        "TICKERD_LOG__FORMAT": "json",
    }
    process = Process("demo", "--port", "0", environ=limits)
    try:
        wait_ready(process.port)
        daemon = Daemon(process)
        for _ in range(50):
            daemon.check(handshake() + client_frame(1, b'{"type":"subscribe","channels":["*"]}'))
        files, memory_kib = daemon.descriptors, daemon.memory_kib
        yield daemon
        until_s = time.monotonic() + ANSWER_S
        while daemon.descriptors > files and time.monotonic() < until_s:
            time.sleep(0.05)
        assert daemon.descriptors <= files
        # The tape goes on growing meanwhile, up to a bound that is far away here.
        assert daemon.memory_kib - memory_kib < 32 * 1024 + 1024 * SECONDS
        assert process.stop() == 0
    finally:
        process.end()


STATUS = re.compile(rb"HTTP/1\.1 (\d{3}) ")


def test_bytes_of_any_kind_are_answered_or_the_connection_ends(daemon: Daemon) -> None:
    def check(sent: bytes, more: bytes) -> None:
        received = daemon.check(sent, more)
        assert received == b"" or STATUS.match(received), received

    search("bytes", check, st.binary(max_size=3000), st.binary(max_size=50))


REQUESTS = [
    b"GET /channels HTTP/1.1\r\nHost: h\r\n\r\n",
    b"GET /snapshot/binance_prices?instrument=BTC/USDT HTTP/1.1\r\nHost: h\r\nAccept: */*\r\n\r\n",
    b"HEAD / HTTP/1.0\r\n\r\n",
    b'GET /client.js HTTP/1.1\r\nHost: h\r\nIf-None-Match: "x"\r\nConnection: close\r\n\r\n',
    b"GET /gaps?channel=ethprice&since_ms=0&limit=5 HTTP/1.1\r\nHost: h\r\nAuthorization: Bearer x\r\n\r\n",
    b"GET /events?channels=ethprice,bitcoinprice&snapshot=true HTTP/1.1\r\nHost: h\r\nLast-Event-ID: a-1\r\n\r\n",
    b'POST /ws/test HTTP/1.1\r\nHost: h\r\nContent-Length: 15\r\n\r\n{"message":"x"}',
    b"POST /ws/test HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\nExpect: 100-continue\r\n\r\n"
    b'f\r\n{"message":"x"}\r\n0\r\n\r\n',
    b"GET http://h/readyz HTTP/1.1\r\nHost: h\r\nX-Forwarded-For: 1.2.3.4\r\nX-Forwarded-Proto: https\r\n\r\n",
    b"GET /ws?token=x HTTP/1.1\r\nHost: h\r\nOrigin: http://h\r\nForwarded: for=1.2.3.4\r\n\r\n",
]
MORSELS = [
    *(b"\r\n", b"\n", b"\r", b"\0", b" ", b"\t", b":", b",", b";", b"%", b"%00", b"%ff", b"?", b"&", b"=", b"#", b"/"),
    *(b"..", b"HTTP/1.1", b"HTTP/2.0", b"\r\n\r\n", b"Content-Length: 99999999999999999999\r\n", b"Host: h\r\n"),
    *(b"Transfer-Encoding: chunked\r\n", b"Connection: upgrade, close\r\n", b"Upgrade: websocket\r\n", b"\xff\xfe"),
    *(b"[::1]:80", b"fe80::1%eth0", b"Expect: 100-continue\r\n", b"X-Forwarded-For: ", b"0\r\n\r\n", b"-1", b"1e999"),
    *(b"\xed\xa0\x80", b"null", b"NaN", b"[" * 200, b'{"' * 100, b"*", b'"', b"\\", b"\xc1", b"\xdf\xff\xff\xff\xff"),
]
EDIT = st.tuples(
    st.floats(0, 1), st.integers(0, 12), st.sampled_from(MORSELS) | st.binary(max_size=6), st.integers(1, 3)
)


def edited(begin: bytes, edits: list[tuple[float, int, bytes, int]]) -> bytes:
    """Some bytes of it replaced, left out, put in, or put in several times."""
    for place, removed, put, times in edits:
        at = round(place * len(begin))
        begin = begin[:at] + put * times + begin[at + removed :]
    return begin


HEADERS = {
    "X-Forwarded-For": [
        "1.2.3.4",
        "unknown",
        "::1",
        "fe80::1%eth0",
        "[::1]:80",
        "1.2.3.4:",
        ",,",
        "127.0.0.1, 1.2.3.4",
        "\xff",
    ],
    "X-Forwarded-Proto": ["https", "http,https", ""],
    "Origin": ["null", "http://h", "https://h:443", "http://h, http://h", "://", "http://[", "\xff"],
    "Upgrade": ["websocket", "h2c, websocket", ""],
    "Connection": ["upgrade", "close", "keep-alive, Upgrade", ""],
    "Sec-WebSocket-Version": ["13", "8", "", "13, 8"],
    "Sec-WebSocket-Key": ["dGhlIHNhbXBsZSBub25jZQ==", "", "x", "\xff"],
    "Sec-WebSocket-Protocol": ["tickerd.v1.json", "tickerd.v1.msgpack, x", ",", "\xff"],
    "Authorization": ["Bearer x", "Bearer", "Basic eDp4", "\xff"],
    "Last-Event-ID": ["a-1", "a--1", "-", "a-99999999999999999999", "\xff"],
    "If-None-Match": ["*", '"x"', 'W/"', ""],
    "Content-Length": ["0", "5", "+5", "5, 5", "0x5"],
    "Expect": ["100-continue", "200-ok"],
    "Accept": ["text/event-stream", "*/*;q=x", ""],
    "Accept-Encoding": ["gzip", "identity;q=0"],
    "Range": ["bytes=0-", "bytes=-1"],
}
TARGETS = [
    "/",
    "/ws",
    "/events?channels=",
    "/events?channels=*&",
    "/snapshot/ethprice?",
    "/gaps?",
    "/ws/test",
    "/readyz",
]
FIELDS = [
    "channels=ethprice",
    "instrument=X",
    "since_ms=",
    "since=a-1",
    "limit=0",
    "interval_ms=1",
    "token=",
    "a=%",
    "=",
    "snapshot=",
]


def _request(method: str, target: str, fields: list[str], headers: list[tuple[str, str]], body: bytes) -> bytes:
    lines = [
        f"{method} {target}{'&'.join(fields)} HTTP/1.1",
        "Host: h",
        *(f"{name}: {value}" for name, value in headers),
    ]
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + body


HEADER = st.sampled_from(sorted(HEADERS)).flatmap(lambda name: st.tuples(st.just(name), st.sampled_from(HEADERS[name])))
UNUSUAL = st.builds(
    _request,
    st.sampled_from(["GET", "GET", "GET", "POST", "HEAD", "OPTIONS", "PUT"]),
    st.sampled_from(TARGETS),
    st.lists(st.sampled_from(FIELDS), max_size=3),
    st.lists(HEADER, max_size=7),
    st.sampled_from([b"", b"", b"hello", b"{}"]),
)
MUTATED = UNUSUAL | st.builds(edited, st.sampled_from(REQUESTS), st.lists(EDIT, max_size=4))


def test_damaged_requests_are_answered_and_never_by_a_500(daemon: Daemon) -> None:
    def check(requests: list[bytes], cut: int) -> None:
        sent = b"".join(requests)
        received = daemon.check(sent[:cut], sent[cut:])
        assert received == b"" or STATUS.match(received), received
        for line in received.split(b"\r\n"):
            if found := STATUS.match(line):
                assert found[1] != b"500", received

    search("requests", check, st.lists(MUTATED, min_size=1, max_size=3), st.integers(0, 400))


COMMANDS = [
    b'{"type":"subscribe","channels":["ethprice","bitcoinprice"],"id":1,"snapshot":true}',
    b'{"type":"subscribe","channels":["*"],"instruments":["BTC/USDT"],"interval_ms":50}',
    b'{"type":"subscribe","channels":["ethprice"],"since":{"epoch":"abc","seq":5},"id":"x"}',
    b'{"type":"unsubscribe","channels":["*"],"id":-1.5}',
    b'{"type":"ping","id":7,"data":{"a":[1,2.5,null,true,"\\u00e9"]}}',
]
ODD: st.SearchStrategy[object] = st.sampled_from(
    [
        None,
        True,
        False,
        0,
        -1,
        1,
        49,
        50,
        2**31,
        2**53 + 1,
        -(2**63),
        10**30,
        0.5,
        -0.0,
        1e308,
        "",
        "*",
        "x" * 300,
        "\u2028",
    ]
) | st.recursive(st.text(max_size=5) | st.integers(), lambda inner: st.lists(inner, max_size=3), max_leaves=5)
NAMES = st.lists(st.sampled_from(["ethprice", "bitcoinprice", "binance_prices", "*", "etprice", ""]) | ODD, max_size=10)


def _command(fields: dict[str, object]) -> bytes:
    return json.dumps(fields).encode()


MADE_UP = st.builds(
    _command,
    st.fixed_dictionaries(
        {"type": st.sampled_from(["subscribe"] * 4 + ["unsubscribe", "ping"]) | ODD, "channels": NAMES | NAMES | ODD},
        optional={
            "instruments": st.lists(st.sampled_from(["BTC/USDT", "ETH/USDT", "X"]) | ODD, max_size=4) | ODD,
            "interval_ms": ODD,
            "snapshot": st.booleans() | ODD,
            "since": st.fixed_dictionaries({"epoch": st.text(max_size=5) | ODD, "seq": st.integers() | ODD}) | ODD,
            "id": ODD,
            "data": ODD,
        },
    ),
)
COMMAND = MADE_UP | st.builds(edited, st.sampled_from(COMMANDS), st.lists(EDIT, max_size=3)) | st.binary(max_size=40)


def _frame(opcode: int, payload: bytes, fin: bool, masked: bool, reserved: int, lie: int) -> bytes:
    made = bytearray(client_frame(opcode, payload, fin=fin, masked=masked))
    made[0] |= reserved
    made[1] = (made[1] + lie) & 0xFF
    return bytes(made)


FRAME = st.builds(
    _frame,
    st.sampled_from([1] * 6 + [2, 0, 8, 9, 9, 10]) | st.integers(0, 15),
    COMMAND,
    st.sampled_from([True] * 6 + [False]),
    st.sampled_from([True] * 12 + [False]),
    st.sampled_from([0] * 20 + [0x10, 0x40, 0x70]),
    st.sampled_from([0] * 20 + [-1, 1, 50]),
)
HANDSHAKES = st.sampled_from([handshake()] * 4 + [handshake("tickerd.v1.json"), handshake("tickerd.v1.msgpack")])
OPENING = HANDSHAKES | HANDSHAKES | st.builds(edited, HANDSHAKES, st.lists(EDIT, max_size=3))


def server_frames(received: bytes) -> Iterator[tuple[int, bytes]]:
    """The frames behind a 101, as far as they are whole."""
    at = 0
    while at + 2 <= len(received):
        first, size = received[at], received[at + 1]
        assert first & 0xF0 == 0x80, "a server's frame is whole, without reserved bits"
        assert size < 0x80, "a server's frame is not masked"
        at += 2
        if size >= 126:
            width = 2 if size == 126 else 8
            size = int.from_bytes(received[at : at + width], "big")
            at += width
        if at + size <= len(received):
            yield first & 0x0F, received[at : at + size]
        at += size


def test_damaged_handshakes_and_frames_are_answered_in_whole_frames(daemon: Daemon) -> None:
    def check(opening: bytes, frames: list[bytes], cut: int) -> None:
        sent = opening + b"".join(frames)
        received = daemon.check(sent[:cut], sent[cut:])
        assert received == b"" or STATUS.match(received), received
        head, _, rest = received.partition(b"\r\n\r\n")
        if not head.startswith(b"HTTP/1.1 101 "):
            return
        closed = False
        for opcode, payload in server_frames(rest):
            assert not closed, "something follows the close frame"
            assert opcode in (1, 2, 8, 9, 10)
            if opcode == 8:
                closed = True
                assert int.from_bytes(payload[:2], "big") != 1011, payload
            elif opcode == 1:
                json.loads(payload)

    search("websockets", check, OPENING, st.lists(FRAME, max_size=12), st.integers(0, 600))


# ---- against the session alone --------------------------------------------------------------------------------------

LIMITS = CommandLimits(commands_per_s=50, commands_burst=100, channels_per_command=8, errors_in_a_row=20)
RAW = COMMAND | st.text(max_size=60) | st.builds(lambda raw: raw.decode(errors="ignore"), COMMAND)


def test_whatever_a_client_sends_the_session_answers_each_frame_in_words() -> None:
    def check(format: Format, frames: list[str | bytes], sizes: list[int]) -> None:
        session, meter = Session(Catalogue(CHANNELS), format, LIMITS, 0.0), FrameMeter(50, 100, 0.0)
        over = False
        for at, raw in enumerate(frames):
            effects = session.receive(raw, at * 0.01, NOW)
            assert over == (effects == [])
            for effect in effects:
                _check_effect(effect, format)
            over = over or any(isinstance(effect, Close) for effect in effects)
            sent = raw.encode(errors="replace") if isinstance(raw, str) else raw
            for size in sizes:
                meter.feed(sent[:size], at * 0.01)

    formats = st.sampled_from([Format.JSON, Format.MSGPACK])
    search("session", check, formats, st.lists(RAW, max_size=40), st.lists(st.integers(0, 60), max_size=3))


def _check_effect(effect: Effect, format: Format) -> None:
    match effect:
        case Reply(message):
            assert encode_as(message, format)
            if isinstance(message, Error):
                assert 0 < len(message.message) < 2000
                assert message.code in set(ErrorCode)
        case Join() | Leave():
            assert set(effect.channels) <= {channel.name for channel in CHANNELS}
        case Close(_, reason):
            assert reason
