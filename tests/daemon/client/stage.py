"""Plays a scenario's daemon, proxy and broken connections on a port of loopback, and notes what the client asks."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from typing import Any, assert_never

import trio
from trio_websocket import ConnectionClosed, WebSocketConnection, wrap_server_stream

from tests.daemon.client.scenarios import CHANNELS, STAMP, Answer, HangUp, Scenario, Serve


class Stage:
    """The other end of a client, for one scenario.

    Attributes:
        url: the websocket's address.
        connections: how many there were, whatever became of them.
        resumes: per connection of a daemon, from which position each channel was asked for.
        asked: per connection of a daemon, the interval and the number of instruments of each `subscribe`.
    """

    def __init__(self, scenario: Scenario, port: int) -> None:
        self.url = f"ws://127.0.0.1:{port}/ws"
        self.connections = 0
        self.resumes: list[dict[str, int | None]] = []
        self.asked: list[list[tuple[int | None, int | None]]] = []
        self._scenario = scenario

    async def accept(self, stream: trio.SocketStream) -> None:
        """One connection."""
        number = self.connections
        self.connections += 1
        async with stream:
            if number >= len(self._scenario.acts):
                return
            match self._scenario.acts[number]:
                case Serve() as act:
                    await self._serve(stream, act)
                case Answer(status=status, body=body, headers=headers):
                    await _read_head(stream)
                    lines = [f"HTTP/1.1 {status} Some Reason", f"Content-Length: {len(body)}", *headers, "", ""]
                    await stream.send_all("\r\n".join(lines).encode() + body)
                case HangUp(after=after):
                    await _read_head(stream)
                    await stream.send_all(after)
                case _ as act:
                    assert_never(act)

    async def _serve(self, stream: trio.SocketStream, act: Serve) -> None:
        async with trio.open_nursery() as nursery:
            request = await wrap_server_stream(nursery, stream)
            websocket = await request.accept(subprotocol="tickerd.v1.json")
            with suppress(ConnectionClosed):
                await self._play(websocket, act)
            nursery.cancel_scope.cancel(reason="the act is over")

    async def _play(self, websocket: WebSocketConnection, act: Serve) -> None:
        at = {"epoch": act.epoch, "seq": act.seq}
        server = {"name": "tickerd", "version": "1"}
        await _say(websocket, type="welcome", server=server, channels=CHANNELS, heartbeat_s=act.heartbeat_s, **at)
        asked: dict[str, int | None] = {}
        self.resumes.append(asked)
        self.asked.append([])
        wanted = act.wants or len(self._scenario.channels)
        while len(asked) < wanted:
            await self._answer(websocket, act, asked)
        for each in act.says:
            if isinstance(each, dict):
                await _say(websocket, **each)
            else:
                await websocket.send_message(each)
        if act.then:
            changing = replace(act, seq=act.then_seq)
            so_far = len(self.asked[-1])
            while len(self.asked[-1]) == so_far:
                await self._answer(websocket, changing, asked)
            for each in act.then:
                await _say(websocket, **each)
        if act.close is None:
            return
        if act.close:
            # Whoever closes says nothing more, so what was sent must have come before.
            await websocket.aclose(*act.close)
            return
        while not act.mute:
            await self._answer(websocket, act, asked)
        await trio.sleep_forever()

    async def _answer(self, websocket: WebSocketConnection, act: Serve, asked: dict[str, int | None]) -> None:
        """Answer the next command."""
        command: dict[str, Any] = json.loads(await websocket.get_message())
        id_ = command.get("id")
        match command["type"]:
            case "ping":
                await _say(websocket, type="pong", id=id_)
            case "subscribe" if act.refuses:
                asked.update(dict.fromkeys(command["channels"]))
                await _say(websocket, type="error", code=act.refuses, message="it is refused", id=id_)
            case "subscribe":
                channels, since, named = command["channels"], command.get("since"), command.get("instruments")
                self.asked[-1].append((command.get("interval_ms"), None if named is None else len(named)))
                asked.update(dict.fromkeys(channels, since and since["seq"]))
                answer = {"epoch": act.epoch, "seq": act.seq, "channels": channels, "id": id_}
                if since:
                    answer["recovered"] = dict.fromkeys(channels, act.recovered)
                if since and act.missed is not None:
                    answer["missed"] = dict.fromkeys(channels, act.missed)
                await _say(websocket, type="subscribed", **answer)
            case "unsubscribe":
                answer = {"epoch": act.epoch, "seq": act.seq, "channels": command["channels"], "id": id_}
                await _say(websocket, type="unsubscribed", **answer)


async def _say(websocket: WebSocketConnection, **message: Any) -> None:
    await websocket.send_message(json.dumps({"timestamp": STAMP, **message}))


async def _read_head(stream: trio.SocketStream) -> None:
    head = b""
    while b"\r\n\r\n" not in head and (received := bytes(await stream.receive_some())):
        head += received


@asynccontextmanager
async def open_stage(scenario: Scenario) -> AsyncIterator[Stage]:
    """Play it."""
    listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
    stage = Stage(scenario, listeners[0].socket.getsockname()[1])

    async def accept(stream: trio.SocketStream) -> None:
        with suppress(trio.BrokenResourceError):
            await stage.accept(stream)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(trio.serve_listeners, accept, listeners)
        yield stage
        nursery.cancel_scope.cancel(reason="the scenario is over")
