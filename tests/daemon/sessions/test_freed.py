"""A client that is gone is freed by its reference counts: no garbage collection, which stops everybody, is needed."""

import gc
import socket
import struct
from collections import Counter
from collections.abc import Iterator

import pytest
import trio

from daemon.sessions.websocket import WebSocketClient
from tests.daemon.serving import CLOSE, PING, SUBSCRIBE, TEXT, Gateway, HandMade, client_frame, open_gateway, price


@pytest.fixture
def no_collections() -> Iterator[None]:
    gc.collect()
    gc.disable()
    gc.set_debug(gc.DEBUG_SAVEALL)
    try:
        yield
    finally:
        gc.set_debug(0)
        gc.garbage.clear()
        gc.enable()
        gc.collect()


async def closes(client: HandMade) -> None:
    await client.stream.send_all(client_frame(CLOSE, struct.pack("!H", 1000)))
    while await client.stream.receive_some(65536):
        pass


async def resets(client: HandMade) -> None:
    assert isinstance(client.stream, trio.SocketStream)
    client.stream.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


async def breaks_the_rules(client: HandMade) -> None:
    await client.stream.send_all(client_frame(PING, bytes(1), fin=False))
    while await client.stream.receive_some(65536):
        pass


async def vanishes(client: HandMade) -> None:
    await trio.lowlevel.checkpoint()


async def comes_and_goes(gateway: Gateway, ending: object) -> None:
    async with await gateway.client() as client:
        await client.stream.send_all(client_frame(TEXT, SUBSCRIBE))
        while (await client.message())["type"] != "subscribed":
            pass
        gateway.publish(price())
        assert callable(ending)
        await ending(client)


@pytest.mark.parametrize("ending", [closes, resets, breaks_the_rules, vanishes])
async def test_a_websocket_leaves_no_garbage(ending: object, no_collections: None) -> None:
    async with open_gateway() as gateway:
        await comes_and_goes(gateway, ending)  # what is made once is made
        await gateway.all_gone()
        gc.collect()
        gc.garbage.clear()
        for _ in range(10):
            await comes_and_goes(gateway, ending)
        await gateway.all_gone()
        gc.collect()
        kinds = Counter(type(each).__qualname__ for each in gc.garbage)
        assert not kinds[WebSocketClient.__qualname__], kinds
        assert not kinds["Task"], kinds
        assert not kinds["socket"], kinds


async def test_an_event_stream_and_a_client_that_never_read_leave_no_garbage(no_collections: None) -> None:
    async with open_gateway() as gateway:
        for _ in range(2):
            gc.collect()
            gc.garbage.clear()
            stream = await gateway.dial()
            await stream.send_all(b"GET /events?channels=bitcoinprice HTTP/1.1\r\nHost: localhost\r\n\r\n")
            while b"subscribed" not in await stream.receive_some(65536):
                pass
            client = await gateway.client(receive_buffer=2048)
            await client.stream.send_all(client_frame(TEXT, SUBSCRIBE))
            while (await client.message())["type"] != "subscribed":
                pass
            for number in range(3000):
                gateway.publish(price(number, size=500))
            assert gateway.hub.statistics().behind
            for each in (stream, client.stream):
                await trio.aclose_forcefully(each)
            await gateway.all_gone()
        gc.collect()
        kinds = Counter(type(each).__qualname__ for each in gc.garbage)
        assert not kinds & Counter(["EventStream", "WebSocketClient", "ClientStream", "Task", "socket"]), kinds
