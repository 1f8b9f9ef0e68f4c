"""`[record]` in the daemon: gives each connector its tap, and tells everybody where recording does not work.

While it does not, each channel that a venue feeds has a remark in its `status`, `/readyz` says so, and the ledger has a
gap `unrecorded` with the number of frames. The feed itself goes on as ever.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

import trio

from connectors.base import Connector, VenueSettings
from connectors.capture.described import described
from connectors.capture.recorder import Recorder, RecordSettings
from connectors.capture.tap import Recorded, Tap
from daemon.health.board import Board, Verdict
from daemon.host.clock import WallClock
from daemon.tape.ledger import Ledger
from protocol.channels import Channel

LOOK_S: Final = 1.0
"""How often it is looked whether clients know how recording goes."""


class Recording:
    """The recorder, and those who are to know how it does.

    Attributes:
        recorder: what records; owned by `run`.
    """

    def __init__(
        self,
        settings: RecordSettings,
        *,
        board: Board,
        ledger: Ledger,
        clock: WallClock,
        publish: Callable[[Sequence[Verdict]], None],
        daemon: str,
    ) -> None:
        """`publish` tells clients of verdicts; `daemon` is our version, for the files."""
        self._board = board
        self._ledger = ledger
        self._clock = clock
        self._publish = publish
        self._taps: dict[str, list[Tap]] = {}
        self.recorder = Recorder(settings, clock.now_ms, daemon=daemon, noted=self._note, over=self._end)

    @property
    def trouble(self) -> str:
        """Why nothing is recorded; "" while all is well."""
        return self.recorder.trouble

    def record(
        self, venue: str, connectors: Sequence[Connector], channels: Sequence[Channel], settings: VenueSettings
    ) -> None:
        """Record what these connectors of a venue receive; what its connectors were before is over."""
        for tap in self._taps.pop(venue, ()):
            tap.end("the configuration was changed")
        told = [described(channel) for channel in channels]
        taps = self._taps[venue] = []
        for connector in connectors:
            if isinstance(connector, Recorded):
                tap = self.recorder.tap(venue, connector.name, connector.carried, told, settings.public())
                taps.append(tap)
                connector.record(tap)

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Record, and tell how that goes, until cancelled."""
        async with trio.open_nursery() as nursery:
            await nursery.start(self.recorder.run)
            task_status.started()
            while True:
                self.tell()
                await trio.sleep(LOOK_S)

    def tell(self) -> None:
        """Tell the clients of each channel, unless they know; a reload may have brought new channels."""
        reason = f"what the venue sends is not recorded: {self.trouble}" if self.trouble else ""
        verdicts: list[Verdict] = []
        for channel in self._board.catalogue:
            held = self._board.verdict(channel.name, "record")
            if not channel.kind.made_of and reason != ("" if held is None else held.reason):
                verdicts.append(Verdict(channel.name, "record", "live", reason))
        if verdicts:
            self._publish(verdicts)

    def _note(self, reason: str, frames: int) -> None:
        told = f"what venues send is not recorded: {reason}"
        self._ledger.note("unrecorded", "", self._clock.now_ms(), count=max(1, frames), reason=told)

    def _end(self) -> None:
        self._ledger.over("unrecorded", "", self._clock.now_ms())
