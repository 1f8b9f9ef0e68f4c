"""What a client leaves in the log: a line each for connect, close, refusal and change of state, none per message."""

import logging
from typing import Any

import pytest
import trio

from connectors.base import StateChange
from protocol.codes import CloseCode
from tests.daemon.serving import BINARY, CLOSE, Gateway, HandMade, open_gateway, price


def fields(caplog: pytest.LogCaptureFixture, event: str) -> list[dict[str, Any]]:
    """The records of that event, as JSON lines show them."""
    names = ("peer", "code", "reason", "status", "channel", "before", "state")
    found = [record.__dict__ for record in caplog.records if getattr(record, "event", "") == event]
    return [{name: record[name] for name in names if name in record} for record in found]


@pytest.fixture(autouse=True)
def everything(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)


async def lines_of(caplog: pytest.LogCaptureFixture, gateway: Gateway, client: HandMade) -> list[str]:
    """What was logged of this client."""
    await client.closed()
    await trio.aclose_forcefully(client.stream)
    await gateway.wait(lambda: gateway.door.statistics().connections_open == 0)
    return [message for message in caplog.messages if message.startswith("client ")]


async def test_a_client_that_says_goodbye(caplog: pytest.LogCaptureFixture) -> None:
    async with open_gateway() as gateway:
        client = await gateway.client()
        await client.send((1000).to_bytes(2, "big") + b"done\x1b[2J", CLOSE)
        assert await lines_of(caplog, gateway, client) == [
            "client 127.0.0.1 connected (tickerd.v1.json)",
            "client 127.0.0.1 closed: 1000 done\x1b[2J",  # made harmless where it is written: `daemon.host.logs`
        ]
        assert fields(caplog, "connect") == [{"peer": "127.0.0.1"}]
        assert fields(caplog, "close") == [{"peer": "127.0.0.1", "code": 1000, "reason": "done\x1b[2J"}]


async def test_a_client_that_is_closed_for_what_it_did(caplog: pytest.LogCaptureFixture) -> None:
    async with open_gateway() as gateway:
        client = await gateway.client()
        await client.send(b"{}", BINARY)
        await lines_of(caplog, gateway, client)
        [close] = fields(caplog, "close")
        assert (close["code"], close["reason"]) == (1003, "a binary frame on the JSON protocol")


async def test_a_client_that_is_gone(caplog: pytest.LogCaptureFixture) -> None:
    async with open_gateway() as gateway:
        client = await gateway.client()
        assert isinstance(client.stream, trio.SocketStream)
        await client.stream.send_eof()
        assert len(await lines_of(caplog, gateway, client)) == 2
        assert [close["code"] for close in fields(caplog, "close")] == [1006]


async def test_a_client_that_the_sweeper_drops(caplog: pytest.LogCaptureFixture) -> None:
    async with open_gateway() as gateway:
        client = await gateway.client()
        [session] = gateway.sessions
        session.stream.last_received_s -= 100
        await gateway.sessions.sweep()
        assert len(await lines_of(caplog, gateway, client)) == 2
        assert [close["code"] for close in fields(caplog, "close")] == [CloseCode.NO_PONG]


async def test_clients_at_a_stop(caplog: pytest.LogCaptureFixture) -> None:
    async with open_gateway() as gateway, await gateway.client() as client:
        gateway.door.stop_accepting()
        await gateway.sessions.say_goodbye("the daemon is stopping", 0.2, 1.0)
        assert (await client.closed()).code == 1001
        assert fields(caplog, "close") == [{"peer": "127.0.0.1", "code": 1001, "reason": "the daemon is stopping"}]


async def test_messages_leave_no_line_and_a_change_of_state_leaves_one(caplog: pytest.LogCaptureFixture) -> None:
    async with open_gateway() as gateway, await gateway.client() as client:
        await client.subscribe("bitcoinprice")
        caplog.clear()
        gateway.publish(*(price(number) for number in range(100)))
        for _ in range(100):
            await client.message()
        assert caplog.messages == []
        gateway.publish(StateChange("bitcoinprice", "live"), StateChange("bitcoinprice", "live"))
        gateway.publish(StateChange("bitcoinprice", "down", "the venue is away"))
        assert caplog.messages == [
            "channel bitcoinprice is live, was connecting",
            "channel bitcoinprice is down, was live",
        ]
        assert fields(caplog, "state")[1] == {
            "channel": "bitcoinprice",
            "before": "live",
            "state": "down",
            "reason": "the venue is away",
        }


async def test_a_refusal_says_who_and_why_and_never_what_was_asked(caplog: pytest.LogCaptureFixture) -> None:
    async with open_gateway() as gateway:
        stream = await gateway.dial()
        await stream.send_all(b"GET /ws?token=secret HTTP/1.1\r\nHost: h\r\nAuthorization: Bearer secret\r\n\r\n")
        assert (await stream.receive_some(4096)).startswith(b"HTTP/1.1 426 ")
        await stream.send_all(b"GET /ws?token=secret HTTP/9.9\r\nAuthorization: secret\r\n\r\n")
        assert (await stream.receive_some(4096)).startswith(b"HTTP/1.1 ")
        await stream.aclose()
        assert "127.0.0.1 refused: 426 bad_request" in caplog.messages
        assert fields(caplog, "refusal")[0] == {"peer": "127.0.0.1", "status": 426, "code": "bad_request"}
        assert len(fields(caplog, "refusal")) == 2
    assert "secret" not in caplog.text
