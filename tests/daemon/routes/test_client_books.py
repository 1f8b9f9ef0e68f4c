"""`/client.js` and books: whoever begins in the past is given no change of a book that it has not been given."""

from typing import Any

import pytest
from msgspec import Raw

from connectors.base import Event
from protocol.channels import Channel
from protocol.fields import DepthFields, SnapshotFields
from protocol.kinds import KINDS
from tests.daemon.routes.test_client_changes import BTC, ETH, Driven, driven

DEPTH = Channel(name="okx_depth", exchange="okx", kind=KINDS["depth"], instruments=(BTC, ETH))
NO_LEVELS = Raw(b"[]")
WHOLE = SnapshotFields(Raw(b'[["1","2"]]'), NO_LEVELS)
CHANGE = DepthFields(Raw(b'[["1","3"]]'), NO_LEVELS)


def publish(client: Driven, *events: tuple[str, SnapshotFields | DepthFields]) -> None:
    for instrument, fields in events:
        client.gateway.publish(Event("okx_depth", instrument, b"{}", 1, "1.5", fields=fields))


def messages(client: Driven) -> list[tuple[str, int, int, str]]:
    """What came: instrument, `seq`, `prev_seq` and type of each."""
    return [said["message"] for said in client.said if "message" in said]


def story(client: Driven, instrument: str) -> list[tuple[str, int]]:
    return [(type_, prev_seq) for name, _, prev_seq, type_ in messages(client) if name == instrument]


def has_newest(client: Driven, instrument: str) -> bool:
    """Or a book that was made for it afterwards, with all that was in the newest."""
    newest = client.gateway.tape.last_seq(("okx_depth", instrument))
    return any(name == instrument and seq >= newest for name, seq, _, _ in messages(client))


def holds_a_book(client: Driven, instrument: str) -> bool:
    """Whether each change that came has a book before it, to which it belongs."""
    held: int | None = None
    for name, seq, prev_seq, type_ in messages(client):
        if name != instrument:
            continue
        if type_ == "depth_snapshot":
            held = seq
        elif held is None or prev_seq > held:
            return False
        else:
            held = seq
    return held is not None


@pytest.mark.parametrize("replay", [1, 2, 3, 4, 100])
async def test_a_replay_that_begins_amid_a_book_brings_the_book_first(replay: int) -> None:
    async with driven((DEPTH,)) as client:
        publish(client, (BTC, WHOLE), (BTC, CHANGE), (ETH, WHOLE), (BTC, CHANGE), (ETH, CHANGE))
        await client.move(connect={"channels": ["okx_depth"], "replay": replay})
        await client.until("it is not open", lambda: client.opened == 1)
        publish(client, (BTC, CHANGE), (ETH, CHANGE))
        for instrument in (BTC, ETH):
            await client.until("nothing new", lambda instrument=instrument: has_newest(client, instrument))
            assert holds_a_book(client, instrument), story(client, instrument)
        await client.sync()
        publish(client, (ETH, CHANGE), (BTC, CHANGE))
        for instrument in (BTC, ETH):
            await client.until("nothing new", lambda instrument=instrument: has_newest(client, instrument))
            assert holds_a_book(client, instrument), story(client, instrument)
        assert client.gaps() == []


async def test_so_it_does_if_the_connection_breaks_before_the_book_is_there() -> None:
    async with driven((DEPTH,)) as client:
        publish(client, (BTC, WHOLE), (BTC, CHANGE), (BTC, CHANGE))
        await client.move(connect={"channels": ["okx_depth"], "replay": 1})
        await client.until("it is not open", lambda: client.opened == 1)
        await client.move(cut=False)
        await client.until("not connected again", lambda: client.opened == 2)
        publish(client, (BTC, CHANGE))
        await client.until("nothing new", lambda: has_newest(client, BTC))
        assert holds_a_book(client, BTC), story(client, BTC)
        assert client.gaps() == []


async def test_whoever_wants_changes_alone_gets_them() -> None:
    async with driven((DEPTH,)) as client:
        publish(client, (BTC, WHOLE), (BTC, CHANGE))
        options: dict[str, Any] = {"channels": ["okx_depth"], "snapshot": False}
        await client.move(connect=options)
        await client.until("it is not open", lambda: client.opened == 1)
        await client.sync()
        publish(client, (BTC, CHANGE))
        await client.until("nothing new", lambda: has_newest(client, BTC))
        assert [type_ for type_, _ in story(client, BTC)] == ["depth_update"]
