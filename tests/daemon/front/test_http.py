"""HTTP on one connection, over streams in memory: every deadline by the jumping clock, every limit, every split."""

import email.utils
import itertools
import traceback

import pytest
import trio
import trio.testing
from hypothesis import given
from hypothesis import strategies as st

from daemon.front.http import Conversation, Refused, Request, Response
from daemon.front.limits import Limits
from daemon.front.tokens import Presented
from daemon.host.clock import WallClock
from protocol.codes import ErrorCode
from protocol.messages import Error, Format, decode_message

LIMITS = Limits(head_bytes=512, body_bytes=64, handshake_s=10.0, keep_alive_s=60.0, write_deadline_s=30.0)
CLOCK = WallClock(lambda: 1_765_211_445_123_000_000)
GET = b"GET /channels HTTP/1.1\r\nHost: localhost\r\n\r\n"
OK = Response(200, b'{"ok":true}')

Pair = tuple[Conversation, trio.abc.HalfCloseableStream]


def conversation(*, limits: Limits = LIMITS, lockstep: bool = False) -> Pair:
    """A server's conversation and the client's end of its stream."""
    pair = trio.testing.lockstep_stream_pair if lockstep else trio.testing.memory_stream_pair
    client, server = pair()
    deadline = trio.current_time() + limits.handshake_s
    http = Conversation(server, limits, CLOCK, peer="192.0.2.1", secure=False, head_deadline=deadline)
    return http, client


async def received(sent: bytes, *, limits: Limits = LIMITS) -> Request:
    """What a request's bytes come out as."""
    http, client = conversation(limits=limits)
    await client.send_all(sent)
    request = await http.receive()
    assert request is not None
    return request


async def refused(http: Conversation) -> Refused:
    with pytest.raises(Refused) as caught:
        await http.receive()
    return caught.value


async def test_a_request_has_its_parts() -> None:
    request = await received(
        b"POST /a%20b/c?x=1&y=BTC%2FUSDT&x= HTTP/1.1\r\nHost: h:8000\r\nX-A: one, Two\r\nx-a: 3\r\n"
        b"Content-Length: 4\r\n\r\nbody"
    )
    assert (request.method, request.path, request.version) == ("POST", "/a b/c", "1.1")
    assert request.query == (("x", "1"), ("y", "BTC/USDT"), ("x", ""))
    assert request.body == b"body"
    assert (request.peer, request.secure) == ("192.0.2.1", False)
    assert request.values("host") == ["h:8000"]
    assert request.values("x-a") == ["one, Two", "3"]
    assert request.tokens("x-a") == ["one", "Two", "3"]
    assert request.tokens("absent") == []


@pytest.mark.parametrize("target", [b"http://h/ws?a=1", b"HTTPS://h:99/ws?a=1", b"/ws?a=1"])
async def test_the_absolute_form_of_a_target_is_accepted(target: bytes) -> None:
    request = await received(b"GET " + target + b" HTTP/1.1\r\nHost: h\r\n\r\n")
    assert (request.path, request.query) == ("/ws", (("a", "1"),))


async def test_a_response_has_its_headers() -> None:
    http, client = conversation()
    await client.send_all(GET)
    assert await http.receive() is not None
    await http.send(Response(404, b"{}", headers=(("Allow", "GET"), ("cache-control", "max-age=9"))))
    head, _, body = bytes(await client.receive_some(4096)).partition(b"\r\n\r\n")
    status, *lines = head.decode().split("\r\n")
    headers = {name.lower(): value for name, value in (line.split(": ", 1) for line in lines)}
    assert status.startswith("HTTP/1.1 404")
    assert body == b"{}"
    date = email.utils.parsedate_to_datetime(headers.pop("date"))
    assert date.timestamp() == 1_765_211_445
    assert headers == {
        "content-type": "application/json",
        "content-length": "2",
        "server": "tickerd",
        "x-content-type-options": "nosniff",
        "referrer-policy": "no-referrer",
        "allow": "GET",
        "cache-control": "max-age=9",
        "content-security-policy": "default-src 'none'; frame-ancestors 'none'",
    }


async def test_a_refusal_is_the_error_object_of_the_wire() -> None:
    response = Refused(413, ErrorCode.TOO_LARGE, "too much", (("X", "y"),)).response("2025-12-08T16:30:45.123Z")
    assert (response.status, response.content_type, response.headers) == (413, "application/json", (("X", "y"),))
    expected = Error(timestamp="2025-12-08T16:30:45.123Z", code=ErrorCode.TOO_LARGE, message="too much")
    assert decode_message(response.body, Format.JSON) == expected


async def test_requests_follow_each_other_until_the_client_ends() -> None:
    http, client = conversation()
    await client.send_all(GET + GET)
    await client.send_eof()
    for _ in range(2):
        assert await http.receive() is not None
        await http.send(OK)
        assert http.next_cycle()
    assert await http.receive() is None


@pytest.mark.parametrize(
    "sent",
    [
        b"GET / HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n",
        b"GET / HTTP/1.0\r\n\r\n",
        b"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n",
    ],
)
async def test_nothing_follows_where_the_client_wants_the_end(sent: bytes) -> None:
    http, client = conversation()
    await client.send_all(sent)
    assert await http.receive() is not None
    await http.send(OK)
    assert b"connection: close" in bytes(await client.receive_some(4096)).lower()
    assert not http.next_cycle()


async def test_a_head_request_gets_the_length_but_no_body() -> None:
    http, client = conversation()
    await client.send_all(GET.replace(b"GET", b"HEAD", 1) + GET)
    assert await http.receive() is not None
    await http.send(OK)
    answer = bytes(await client.receive_some(4096))
    assert b"Content-Length: 11\r\n" in answer
    assert answer.endswith(b"\r\n\r\n")
    assert http.next_cycle()
    assert await http.receive() is not None
    await http.send(OK)
    assert bytes(await client.receive_some(4096)).endswith(OK.body)


async def test_an_upgrade_to_something_else_is_an_ordinary_request() -> None:
    http, client = conversation()
    await client.send_all(GET[:-2] + b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\n\r\n")
    assert await http.receive() is not None
    await http.send(OK)
    assert http.next_cycle()


async def test_bytes_behind_a_handshake_are_trailing() -> None:
    http, client = conversation()
    await client.send_all(GET[:-2] + b"Connection: Upgrade\r\nUpgrade: websocket\r\n\r\n\x81\x80abcd")
    assert await http.receive() is not None
    assert http.trailing == b"\x81\x80abcd"


# Limits.


@pytest.mark.parametrize("chunk", [1, 7, 4096])
@pytest.mark.parametrize(("over", "accepted"), [(0, True), (1, False)])
async def test_the_heads_limit_is_exact_however_it_is_cut(chunk: int, over: int, accepted: bool) -> None:
    size = LIMITS.head_bytes + over
    head = GET[:-2] + b"X: "
    head += b"x" * (size - len(head) - 4) + b"\r\n\r\n"
    assert len(head) == size
    http, client = conversation(lockstep=True)

    async def send() -> None:
        for start in range(0, size, chunk):
            await client.send_all(head[start : start + chunk])

    async with trio.open_nursery() as nursery:
        nursery.start_soon(send)
        if accepted:
            assert await http.receive() is not None
        else:
            reason = await refused(http)
            assert (reason.status, reason.code) == (431, ErrorCode.TOO_LARGE)
            assert "512" in str(reason)
        nursery.cancel_scope.cancel()


CHUNKED = GET.replace(b"GET", b"POST", 1)[:-2] + b"Transfer-Encoding: chunked\r\n\r\n"


def declared(size: int) -> bytes:
    return GET.replace(b"GET", b"POST", 1)[:-2] + b"Content-Length: %d\r\n\r\n" % size


@pytest.mark.parametrize(
    "sent", [declared(64) + b"x" * 64, CHUNKED + b"20\r\n" + b"x" * 32 + b"\r\n20\r\n" + b"x" * 32 + b"\r\n0\r\n\r\n"]
)
async def test_a_body_at_the_limit_is_accepted(sent: bytes) -> None:
    assert (await received(sent)).body == b"x" * 64


@pytest.mark.parametrize("sent", [declared(65), CHUNKED + b"41\r\n" + b"x" * 65, declared(10**19)])
async def test_a_body_over_the_limit_is_refused_before_it_is_all_there(sent: bytes) -> None:
    http, client = conversation()
    await client.send_all(sent)
    reason = await refused(http)
    assert (reason.status, reason.code) == (413, ErrorCode.TOO_LARGE)
    await http.send(reason.response("t"))
    assert b"connection: close" in bytes(await client.receive_some(4096)).lower()
    assert not http.next_cycle()


async def test_who_waits_to_send_a_body_is_asked_for_it() -> None:
    http, client = conversation()
    await client.send_all(declared(4)[:-2] + b"Expect: 100-continue\r\n\r\n")
    async with trio.open_nursery() as nursery:

        @nursery.start_soon
        async def receive() -> None:
            request = await http.receive()
            assert request is not None
            assert request.body == b"body"

        assert bytes(await client.receive_some(4096)).startswith(b"HTTP/1.1 100")
        await client.send_all(b"body")


async def test_who_waits_to_send_too_much_is_not_asked_for_it() -> None:
    http, client = conversation()
    await client.send_all(declared(65)[:-2] + b"Expect: 100-continue\r\n\r\n")
    reason = await refused(http)
    await http.send(reason.response("t"))
    assert bytes(await client.receive_some(4096)).startswith(b"HTTP/1.1 413")


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (b"\x16\x03\x01\x02\x00\x01", 400),
        (b"GET / HTTP/1.1\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost : a\r\n\r\n", 400),
        (b"GET  / HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        (b"GET /\xff HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: -1\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip\r\n\r\n", 501),
        (CHUNKED + b"zz\r\n", 400),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505),
        (b"GET /?" + b"&".join([b"a=1"] * 33) + b" HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: a", 400),
    ],
)
async def test_what_is_no_request_is_refused(sent: bytes, status: int) -> None:
    http, client = conversation()
    await client.send_all(sent)
    await client.send_eof()
    reason = await refused(http)
    assert (reason.status, reason.code) == (status, ErrorCode.BAD_REQUEST)
    await http.send(reason.response("t"))
    assert bytes(await client.receive_some(4096)).startswith(b"HTTP/1.1 %d" % status)


TOKEN = "tkd_" + "x" * 43


@pytest.mark.parametrize(
    "sent",
    [
        f"GET  /ws?token={TOKEN} HTTP/1.1\r\nHost: a\r\n\r\n",
        f"GET /ws?token={TOKEN}\x01 HTTP/1.1\r\nHost: a\r\n\r\n",
        f"GET / HTTP/1.1\r\nHost: a\r\nAuthorization : Bearer {TOKEN}\r\n\r\n",
        f"GET / HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {TOKEN}\x00\r\n\r\n",
        f"GET / HTTP/1.1\r\nHost: a\r\n'{TOKEN}\r\n\r\n",
        f"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {TOKEN}\r\n\r\n",
        f"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: {TOKEN}\r\n\r\n",
        f"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n{TOKEN}\r\n",
    ],
)
@pytest.mark.parametrize("token", [TOKEN, "open-sesame"])
async def test_what_is_no_request_is_not_repeated(sent: str, token: str) -> None:
    http, client = conversation()
    await client.send_all(sent.replace(TOKEN, token).encode())
    await client.send_eof()
    reason = await refused(http)
    assert str(reason).startswith("not HTTP/1.1: ")
    assert token not in "".join(traceback.format_exception(reason))


async def test_a_token_is_taken_out_of_the_request() -> None:
    head = f"GET /ws?a=1&token={TOKEN}&b=2 HTTP/1.1\r\nHost: h\r\nAuthorization: Bearer {TOKEN}\r\n\r\n"
    request = await received(head.encode())
    assert request.query == (("a", "1"), ("b", "2"))
    assert request.headers == (("host", "h"),)
    assert request.presented == Presented((f"Bearer {TOKEN}",), (TOKEN,))
    assert TOKEN not in repr(request)


# Deadlines.


async def trickle(client: trio.abc.SendStream, sent: bytes, every_s: float) -> None:
    for byte in itertools.cycle(sent):
        await trio.sleep(every_s)
        await client.send_all(bytes([byte]))


async def test_a_silent_connection_ends_at_the_deadline(autojump_clock: trio.testing.MockClock) -> None:
    http, _client = conversation()
    assert await http.receive() is None
    assert trio.current_time() == LIMITS.handshake_s


@pytest.mark.parametrize("begin", [b"GET / HTTP/1.1\r\nX: ", declared(64), CHUNKED + b"1\r\n"])
async def test_one_deadline_however_slowly_the_bytes_come(begin: bytes, autojump_clock: trio.testing.MockClock) -> None:
    http, client = conversation()
    await client.send_all(begin)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(trickle, client, b"x" if begin != CHUNKED + b"1\r\n" else b"x\r\n1\r\n", 1.0)
        reason = await refused(http)
        nursery.cancel_scope.cancel()
    assert (reason.status, reason.code) == (408, ErrorCode.TIMEOUT)
    assert trio.current_time() == LIMITS.handshake_s
    await http.send(reason.response("t"))
    assert b"connection: close" in bytes(await client.receive_some(4096)).lower()


async def test_a_pause_between_requests_is_limited_and_the_next_head_has_its_own_deadline(
    autojump_clock: trio.testing.MockClock,
) -> None:
    http, client = conversation()
    for _ in range(2):
        await trio.sleep(LIMITS.handshake_s - 1)
        await client.send_all(GET)
        assert await http.receive() is not None
        await http.send(OK)
        assert http.next_cycle()
    began_s = trio.current_time()
    assert await http.receive() is None
    assert trio.current_time() == began_s + LIMITS.keep_alive_s


async def test_a_later_head_that_stays_incomplete_is_refused(autojump_clock: trio.testing.MockClock) -> None:
    http, client = conversation()
    await client.send_all(GET + GET[:9])
    assert await http.receive() is not None
    await trio.sleep(100)
    await http.send(OK)
    assert http.next_cycle()
    began_s = trio.current_time()
    assert (await refused(http)).status == 408
    assert trio.current_time() == began_s + LIMITS.handshake_s


async def test_a_client_that_does_not_take_its_answer_is_given_up(autojump_clock: trio.testing.MockClock) -> None:
    http, client = conversation(lockstep=True)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(client.send_all, GET)
        assert await http.receive() is not None
    with pytest.raises(trio.TooSlowError):
        await http.send(OK)
    assert trio.current_time() == LIMITS.write_deadline_s


async def test_close_soon_ends_a_pause_and_says_so_in_an_answer(autojump_clock: trio.testing.MockClock) -> None:
    http, client = conversation()
    await client.send_all(GET)
    assert await http.receive() is not None
    http.close_soon()
    await http.send(OK)
    assert b"connection: close" in bytes(await client.receive_some(4096)).lower()
    assert not http.next_cycle()

    http, client = conversation()
    await client.send_all(GET)
    assert await http.receive() is not None
    await http.send(OK)
    assert http.next_cycle()
    async with trio.open_nursery() as nursery:

        @nursery.start_soon
        async def receive() -> None:
            assert await http.receive() is None

        await trio.testing.wait_all_tasks_blocked()
        http.close_soon()
    assert await http.receive() is None
    assert trio.current_time() < 0.1


@pytest.mark.parametrize("waiting", [True, False])
async def test_close_soon_has_a_moment_for_a_first_request_that_is_on_its_way(
    waiting: bool, autojump_clock: trio.testing.MockClock
) -> None:
    """To close at once would reset the connection when the request arrives, and its client would not know why."""

    async def answer() -> None:
        if not waiting:
            http.close_soon()
        assert await http.receive() is not None
        await http.send(OK)

    http, client = conversation()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(answer)
        await trio.testing.wait_all_tasks_blocked()
        if waiting:
            http.close_soon()
        await trio.sleep(0.4)
        await client.send_all(GET)
    assert b"connection: close" in bytes(await client.receive_some(4096)).lower()

    http, client = conversation()
    began_s = trio.current_time()
    async with trio.open_nursery() as nursery:

        @nursery.start_soon
        async def receive_nothing() -> None:
            assert await http.receive() is None

        await trio.testing.wait_all_tasks_blocked()
        http.close_soon()
    assert trio.current_time() - began_s == pytest.approx(0.5)


async def test_close_reads_on_for_a_while_so_that_the_answer_arrives(autojump_clock: trio.testing.MockClock) -> None:
    http, client = conversation()
    await client.send_all(declared(65))
    await http.send((await refused(http)).response("t"))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(http.close)
        answer = b""
        while more := bytes(await client.receive_some(4096)):
            answer += more
        with pytest.raises(trio.BrokenResourceError):
            await trickle(client, b"x", 0.75)
    assert answer.startswith(b"HTTP/1.1 413")
    assert trio.current_time() == 2.25


# Any split of the bytes.

STREAM = (
    GET
    + declared(4)
    + b"body"
    + CHUNKED
    + b"3\r\nabc\r\n2\r\nde\r\n0\r\nTrailer: x\r\n\r\n"
    + b"HEAD /x?y=z HTTP/1.1\r\nHost: h\r\n\r\n"
)


@given(cuts=st.sets(st.integers(1, len(STREAM) - 1)))
async def test_any_split_gives_the_same_requests(cuts: set[int]) -> None:
    http, client = conversation(lockstep=True)
    requests = []

    async def send() -> None:
        for start, end in itertools.pairwise([0, *sorted(cuts), len(STREAM)]):
            await client.send_all(STREAM[start:end])
        await client.send_eof()

    async def drain() -> None:
        while await client.receive_some(4096):
            pass

    async with trio.open_nursery() as nursery:
        nursery.start_soon(send)
        nursery.start_soon(drain)
        while (request := await http.receive()) is not None:
            requests.append((request.method, request.path, request.query, request.body))
            await http.send(OK)
            assert http.next_cycle()
        await http.close()
    assert requests == [
        ("GET", "/channels", (), b""),
        ("POST", "/channels", (), b"body"),
        ("POST", "/channels", (), b"abcde"),
        ("HEAD", "/x", (("y", "z"),), b""),
    ]
