"""Where a request ends: whatever is said twice, or against RFC 9112, is answered once, and nothing behind it is read.

A proxy in front may see the end of such a request elsewhere than the daemon does. So the connection is closed behind it
(RFC 9112 sections 6.1 and 6.3), and what follows is never taken for another client's request.
"""

import pytest

from tests.daemon.front.test_front_door import HANDSHAKE, Client, open_door

HOST = "Host: localhost\r\n"
CHUNKED = "Transfer-Encoding: chunked\r\n"
LONG = "Content-Length: {}\r\n".format
ABC = "3\r\nabc\r\n0\r\n\r\n"
BEHIND = b"GET /hello HTTP/1.1\r\nHost: localhost\r\n\r\n"


def post(headers: str, body: str, *, version: str = "1.1", host: str = HOST) -> bytes:
    return f"POST /echo HTTP/{version}\r\n{host}{headers}\r\n{body}".encode("latin-1")


# What is answered, and then the connection is closed.
CLOSED = {
    "both, the length first": (post(LONG(3) + CHUNKED, ABC), 200),
    "both, the coding first": (post(CHUNKED + LONG(13), ABC), 200),
    "both, and the length is that of the coded body": (post(LONG(len(ABC)) + CHUNKED, ABC), 200),
    "both, and the length is none": (post(CHUNKED + LONG(0), ABC), 200),
    "both, and the body is empty": (post(CHUNKED + LONG(0), "0\r\n\r\n"), 200),
    "both, folded": (post("Transfer-Encoding:\r\n chunked\r\n" + LONG(3), ABC), 200),
    "both, to what is not there": (post(CHUNKED + LONG(3), ABC).replace(b"/echo", b"/nothing"), 404),
    "both, by another page": (post(CHUNKED + LONG(3) + "Origin: https://evil.example\r\n", ABC), 403),
    "both, to open a websocket": (HANDSHAKE.replace(b"Host", f"{CHUNKED}{LONG(0)}Host".encode()) + b"0\r\n\r\n", 400),
    "a coding in HTTP/1.0": (post(CHUNKED, ABC, version="1.0"), 200),
    "a coding in HTTP/1.0 that wants to stay": (post(CHUNKED + "Connection: keep-alive\r\n", ABC, version="1.0"), 200),
    "a coding and a length in HTTP/1.0": (post(CHUNKED + LONG(3), ABC, version="1.0"), 200),
    # What is refused.
    "lengths that differ": (post(LONG(3) + LONG(4), "abcd"), 400),
    "lengths that differ in one line": (post(LONG("3, 4"), "abcd"), 400),
    "a length that is none": (post(LONG("three"), "abc"), 400),
    "a length with a sign": (post(LONG("+3"), "abc"), 400),
    "a length below nothing": (post(LONG("-3"), "abc"), 400),
    "a length in another base": (post(LONG("0x3"), "abc"), 400),
    "a length with an underscore": (post(LONG("0_3"), "abc"), 400),
    "a length in other digits": (post(LONG("\xb3"), "abc"), 400),
    "an empty length": (post(LONG(""), "abc"), 400),
    "a list of lengths with nothing in it": (post(LONG("3,"), "abc"), 400),
    "a length of many digits": (post(LONG("0" * 30 + "3"), "abc"), 400),
    "space before the colon": (post("Content-Length : 3\r\n", "abc"), 400),
    "two codings": (post(CHUNKED * 2, ABC), 501),
    "two codings in one line": (post("Transfer-Encoding: chunked, chunked\r\n", ABC), 501),
    "another coding": (post("Transfer-Encoding: gzip, chunked\r\n", ABC), 501),
    "a coding that is none": (post("Transfer-Encoding: identity\r\n", "abc"), 501),
    "a coding that is nearly one": (post("Transfer-Encoding: xchunked\r\n", ABC), 501),
    "a coding behind a vertical tab": (post("Transfer-Encoding: \x0bchunked\r\n", ABC), 400),
    "a coding and an empty one": (post("Transfer-Encoding: \r\n", ABC), 501),
    "a fold before the first field": (b"GET /hello HTTP/1.1\r\n X: y\r\nHost: localhost\r\n\r\n", 400),
    "a bare CR": (b"GET /hello HTTP/1.1\r\nHost: localhost\rX: y\r\n\r\n", 400),
    "a NUL": (b"GET /hello HTTP/1.1\r\nHost: localhost\r\nX: y\x00\r\n\r\n", 400),
    "two hosts": (post(HOST + LONG(3), "abc"), 400),
    "no host": (post(LONG(3), "abc", host=""), 400),
    "no version": (b"GET /hello\r\n\r\n", 400),
    "two spaces": (b"GET  /hello HTTP/1.1\r\nHost: localhost\r\n\r\n", 400),
    "a chunk in another base": (post(CHUNKED, "0x3\r\nabc\r\n0\r\n\r\n"), 400),
    "a chunk below nothing": (post(CHUNKED, "-3\r\nabc\r\n0\r\n\r\n"), 400),
    "a chunk that is longer than it says": (post(CHUNKED, "3\r\nabcd\r\n0\r\n\r\n"), 400),
    "chunks that end in bare LF": (post(CHUNKED, "3\nabc\n0\n\n"), 400),
    "a chunk of a size that overflows": (post(CHUNKED, "ffffffffffffffffffff\r\n" + "x" * 2000), 413),
    "a chunk with a comment without end": (post(CHUNKED, f"3;{'x' * 40_000}\r\nabc\r\n0\r\n\r\n"), 431),
    "chunks with comments, many": (post(CHUNKED, f"1;{'x' * 400}\r\na\r\n" * 60 + "0\r\n\r\n"), 413),
}

# What is answered, and the connection goes on.
OPEN = {
    "one length": post(LONG(3), "abc"),
    "the same length twice": post(LONG(3) * 2, "abc"),
    "the same length twice in one line": post(LONG("3, 3"), "abc"),
    "one coding": post(CHUNKED, ABC),
    "a coding in another case": post("tRANSFER-eNCODING: cHUNKED\r\n", ABC),
    "a coding, folded": post("Transfer-Encoding:\r\n chunked\r\n", ABC),
    "a chunk with a comment": post(CHUNKED, "3;a=b\r\nabc\r\n0\r\n\r\n"),
    "fields behind the chunks": post(CHUNKED, "3\r\nabc\r\n0\r\nContent-Length: 9\r\nHost: evil.example\r\n\r\n"),
    "a field that is folded": post("X: y\r\n\tContent-Length: 9\r\n" + LONG(3), "abc"),
    "bare LF": post(LONG(3), "abc").replace(b"\r\n", b"\n"),
}


async def _answered(client: Client, sent: bytes) -> tuple[int, dict[str, str], bytes]:
    await client.send(sent + BEHIND)
    return await client.response()


@pytest.mark.parametrize("name", CLOSED)
async def test_behind_a_request_whose_end_is_doubtful_nothing_is_read(name: str) -> None:
    sent, expected = CLOSED[name]
    async with open_door() as door, door.client() as client:
        status, headers, body = await _answered(client, sent)
        assert (status, headers["connection"]) == (expected, "close")
        if status == 200:
            assert body in (b"abc", b"")
        await client.ended()
        assert door.front.statistics().upgrades_count == 0


@pytest.mark.parametrize("name", OPEN)
async def test_a_request_whose_end_is_certain_leaves_the_connection_open(name: str) -> None:
    async with open_door() as door, door.client() as client:
        status, headers, body = await _answered(client, OPEN[name])
        assert (status, body) == (200, b"abc")
        assert "connection" not in headers
        assert (await client.response())[2] == b'"hello"'
        await client.greeted()
