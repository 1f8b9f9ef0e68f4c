"""The whole daemon where no name can be resolved, and once names can be: one line, and data by itself."""

import logging
import socket
from typing import Any

import pytest
import trio
from trio_websocket import open_websocket_url

from connectors.simulator.simulator import Simulator
from daemon.app import Daemon
from daemon.commands.demo import simulator_config
from daemon.config.load import parse
from tests.process.test_mute_venue import get, status

SOON_S = 20.0
HOST = "venues.invalid"
OFTEN = 50
"""So many attempts that fail are one line in the log."""


class Resolver(trio.abc.HostnameResolver):
    """Knows the venues' host as soon as it works."""

    def __init__(self) -> None:
        self.works = False
        self.asked = 0
        self.often = trio.Event()

    async def getaddrinfo(  # type: ignore[override] # typed more narrowly than called
        self, host: bytes | None, port: int | None, *_: Any, **__: Any
    ) -> list[Any]:
        self.asked += 1
        if self.asked == OFTEN:
            self.often.set()
        if not self.works:
            raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")
        assert host == HOST.encode()
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", port))]

    async def getnameinfo(self, *_: Any) -> tuple[str, str]:
        raise AssertionError


async def test_without_a_network_one_line_says_so_and_all_goes_on_when_it_is_back(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    resolver = Resolver()
    trio.socket.set_custom_hostname_resolver(resolver)
    [venues] = await trio.open_tcp_listeners(0, host="127.0.0.1")
    text = simulator_config(HOST, venues.socket.getsockname()[1])
    text += "[supervisor]\nbackoff_base_s = 0.05\nbackoff_cap_s = 0.1\nbreaker_after = 1000\nrestarts = 10000\n"
    listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
    port = listeners[0].socket.getsockname()[1]
    async with trio.open_nursery() as nursery:
        await nursery.start(Simulator().run, [venues])
        await Daemon(parse(text, {}, "the test")).start(nursery, listeners)
        with trio.fail_after(SOON_S):
            await resolver.often.wait()
            # Not one channel's line, either.
            [line] = [record.getMessage() for record in caplog.records if record.name.startswith("daemon.")]
            words = "no exchange can be reached: name resolution fails; check DNS, firewall, proxy"
            assert line.startswith(f"{words}; each connector tries again by itself")
            assert "venues.invalid" in line or "cannot be reached: [Errno -3]" in line
            told = await get(port, "/readyz")
            assert (told["ready"], told["reason"]) == (False, f"no connector has delivered yet: {words}")
            resolver.works = True
            async with open_websocket_url(f"ws://127.0.0.1:{port}/ws") as client:
                await client.send_message('{"type":"subscribe","channels":["bitcoinprice"]}')
                await status(client, "live")
            told = await get(port, "/readyz")
            assert (told["ready"], "reason" in told) == (True, False)
        nursery.cancel_scope.cancel(reason="the test is over")
    said = [record.getMessage() for record in caplog.records]
    assert said.count("exchanges can be reached again") == 1
