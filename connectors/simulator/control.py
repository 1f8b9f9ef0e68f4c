"""Orders to the simulator: over HTTP (`/control`) and from a scenario, carried out at their time.

    GET  /control           which faults are on, and how often each has acted
    GET  /control/faults    which faults there are
    POST /control           an order (`connectors.simulator.faults.orders`); answered with what is on then

Only loopback is let in: whoever may reach a simulator need not be allowed to spoil it.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Sequence
from typing import Final

import msgspec
import trio

from connectors.simulator.faults.active import ActiveFault, FaultBoard
from connectors.simulator.faults.connections import ConnectionFaults
from connectors.simulator.faults.faults import Fault, Lasting, Notice
from connectors.simulator.faults.orders import Clear, OrderError, Scenario, read_order
from connectors.simulator.faults.table import FAULTS
from connectors.simulator.http.request import VenueRequest, VenueResponse, json_response

PATH: Final = "/control"
FAULTS_PATH: Final = "/control/faults"
PATHS: Final = frozenset({PATH, FAULTS_PATH})


class Control:
    """Carries orders out.

    Args:
        board: Which faults are on; only this object changes it.
        venues: The connections of each venue that has any.
        connections: How many connections there have been.
    """

    def __init__(self, board: FaultBoard, venues: Sequence[ConnectionFaults], connections: Callable[[], int]) -> None:
        self._board = board
        self._venues = venues
        self._connections = connections
        self._changed = trio.Event()
        board.exhausted = self.wake

    def answer(self, request: VenueRequest) -> VenueResponse:
        """Answer a request for one of `PATHS`."""
        if not _is_loopback(request.peer):
            return json_response({"error": f"{request.path} is for this machine alone"}, 403)
        if request.path == FAULTS_PATH and request.method == "GET":
            return json_response({"faults": [kind.described() for kind in FAULTS]})
        if request.path == PATH and request.method == "GET":
            return self._status()
        if request.path == PATH and request.method == "POST":
            return self._ordered(request.body)
        allow = "GET" if request.path == FAULTS_PATH else "GET, POST"
        refusal = json_response({"error": f"{request.method} is not allowed here"}, 405)
        return refusal.with_headers(("allow", allow))

    def order(self, order: Fault | Clear) -> None:
        """Carry an order out at once."""
        if isinstance(order, Clear):
            self._end([one for one in self._board.all() if order.covers(one.fault)], cleared=True)
            return
        active = self._board.switch_on(order, trio.current_time(), self._connections())
        for venue in self._venues:
            venue.begin(active)
        if not isinstance(order, Lasting | Notice):
            self._end([active], cleared=True)
        self.wake()

    def wake(self) -> None:
        """Have `run` look at its times again: a connection has opened, or a fault has acted."""
        self._changed.set()

    async def run(self, scenario: Scenario) -> None:
        """Carry out the scenario, from now on, and end each fault at its time; until cancelled."""
        start_s = trio.current_time()
        steps = list(reversed(scenario.steps))
        while True:
            now_s = trio.current_time()
            self._changed = trio.Event()
            self._end(self._board.over(now_s), cleared=False)
            while steps and start_s + steps[-1].at_s <= now_s:
                self.order(steps.pop().order)
            wake_s = min(*(venue.tick(now_s) for venue in self._venues), self._board.next_end_s())
            if steps:
                wake_s = min(wake_s, start_s + steps[-1].at_s)
            with trio.move_on_at(wake_s):
                await self._changed.wait()

    def _end(self, ended: list[ActiveFault], *, cleared: bool) -> None:
        self._board.switch_off(ended)
        for active in ended:
            for venue in self._venues:
                if active.fault.venue == venue.venue:
                    venue.end(active, cleared=cleared)

    def _ordered(self, body: bytes) -> VenueResponse:
        try:
            self.order(read_order(msgspec.json.decode(body)))
        except OrderError as error:
            return json_response({"error": str(error), "errors": error.errors}, 400)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            return json_response({"error": f"the body is not JSON: {error}"}, 400)
        return self._status()

    def _status(self) -> VenueResponse:
        active = self._board.listed(trio.current_time())
        return json_response({"active": active, "acted": self._board.totals()})


def _is_loopback(peer: str) -> bool:
    try:
        address = ipaddress.ip_address(peer)
    except ValueError:
        return False
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return (mapped or address).is_loopback
