"""Plays a recording to the sequencer, as fast as was asked for.

A thread reads, unpacks and runs the venues' part, a few moments ahead; this task publishes what is due, and looks after
the channels (`daemon.health.watch`) at every quarter second of the recording's time. So what is published, and in which
order, does not depend on the speed: twice the same recording gives twice the same messages.

A time in which nothing at all comes for a minute or longer is passed over in a moment. At the end each channel is
`down`, and the daemon stays, with what it has sent.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from math import inf
from typing import Final

import trio

from connectors.base import StateChange, TopicNote
from connectors.capture.reading import RecordingError
from connectors.replay.items import Missing, Notes, Played
from connectors.replay.playback import Playback
from daemon.health.board import Board
from daemon.health.watch import Watch
from daemon.ingest.inbox import Item, TopicNotes
from daemon.publish.sequencer import Sequencer
from daemon.replay.clock import ReplayClock
from daemon.tape.ledger import Ledger
from protocol.messages import ReplayInfo

LOOK_MS: Final = 250
"""How often the channels are looked after, by the recording's time."""

HOLE_MS: Final = 60_000
"""Nothing for so long is passed over in a moment."""

ENDED: Final = "the recording ended"

_AHEAD: Final = 512
"""Items that the thread makes at once. Of the recording's time that is a second where little happens."""
_AHEAD_MS: Final = 1_000
_CHUNKS: Final = 2
"""How many such chunks may wait."""

_AT_ONCE: Final = 64
"""Items between two looks at the clock where all is played as fast as can be."""
_STEP_S: Final = 0.01
"""After so long others have their turn."""

_log: Final = logging.getLogger(__name__)


class Player:
    """One playing of a recording.

    Attributes:
        clock: the recording's; the daemon goes by it.
        info: what clients are told of it.
        has_ended: set when all has been played.
    """

    def __init__(self, playback: Playback, speed: float) -> None:
        """`speed`: how many times as fast as it was recorded; infinite: as fast as can be."""
        span = playback.span
        self.clock = ReplayClock(span.from_ms)
        self.info = ReplayInfo(
            from_=self.clock.iso(span.from_ms),
            to=self.clock.iso(span.to_ms),
            speed="max" if speed == inf else speed,
        )
        self.has_ended = trio.Event()
        self._playback = playback
        self._speed = speed
        self._look_ms = span.from_ms
        self._last_ms = span.from_ms
        self._moments: list[tuple[int, Item]] = []
        self._broken = ""
        """Why it cannot be played to its end."""

    async def run(
        self,
        sequencer: Sequencer,
        watch: Watch,
        board: Board,
        ledger: Ledger,
        *,
        task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        """Play to the end, and then wait for ever. If cancelled, what is being read is left to its thread."""
        self._sequencer, self._watch, self._board, self._ledger = sequencer, watch, board, ledger
        task_status.started()
        async with trio.open_nursery() as nursery:
            into, chunks = trio.open_memory_channel[Sequence[Played]](_CHUNKS)
            nursery.start_soon(self._read, into)
            await self._play(chunks)
        if self._broken:
            _log.error("the recording cannot be played to its end: %s", self._broken)
        self._end(f"{ENDED}: {self._broken}" if self._broken else ENDED)
        await trio.sleep_forever()

    async def _read(self, into: trio.MemorySendChannel[Sequence[Played]]) -> None:
        played = iter(self._playback)
        with into:
            while chunk := await trio.to_thread.run_sync(self._next, played, abandon_on_cancel=True):
                await into.send(chunk)

    def _next(self, played: Iterator[Played]) -> list[Played]:
        """The next items: so many, or of so much of the recording's time. In the thread."""
        found: list[Played] = []
        try:
            for item in played:
                found.append(item)
                if len(found) >= _AHEAD or item[0] - found[0][0] >= _AHEAD_MS:
                    break
        except RecordingError as error:
            # What came before is played all the same; a generator that has raised is at its end.
            self._broken = str(error)
        return found

    async def _play(self, chunks: trio.MemoryReceiveChannel[Sequence[Played]]) -> None:
        """Publish everything when it is due."""
        began_s = trio.current_time()
        began_ms: float = self._last_ms
        async for chunk in chunks:
            at = 0
            while at < len(chunk):
                due_ms = chunk[at][0]
                now_ms: float = inf
                if self._speed < inf:
                    now_ms = began_ms + (trio.current_time() - began_s) * 1000 * self._speed
                    if due_ms - self._last_ms >= HOLE_MS and due_ms > now_ms:
                        # Nothing came for so long: go on there at once.
                        began_ms += due_ms - now_ms
                        now_ms = due_ms
                    if min(due_ms, self._look_ms) > now_ms:
                        await trio.sleep((min(due_ms, self._look_ms) - now_ms) / 1000 / self._speed)
                        continue
                    if due_ms > now_ms:
                        self._look(min(due_ms, now_ms))
                        continue
                at = self._publish(chunk, at, now_ms)
                await trio.lowlevel.checkpoint()

    def _publish(self, chunk: Sequence[Played], at: int, now_ms: float) -> int:
        """Publish what is due, for a moment at most. Returns the place of the next item."""
        until_s = trio.current_time() + _STEP_S
        while at < len(chunk) and chunk[at][0] <= now_ms:
            for played in chunk[at : at + _AT_ONCE]:
                due_ms, item = played
                if due_ms > now_ms:
                    break
                if due_ms >= self._look_ms:
                    self._look(due_ms)
                if type(item) is list:
                    self._moments.append((due_ms, item))
                else:
                    self._take(due_ms, item)
                self._last_ms = due_ms
                at += 1
            self._hand_over()
            if trio.current_time() >= until_s:
                break
        return at

    def _take(self, at_ms: int, item: object) -> None:
        if isinstance(item, Missing):
            self._tell_missing(at_ms, item)
        elif isinstance(item, Notes):
            self._moments.append((at_ms, TopicNotes(item.notes)))
        elif isinstance(item, StateChange):
            self._moments.append((at_ms, item))

    def _tell_missing(self, at_ms: int, missing: Missing) -> None:
        """What was not recorded is a gap of the ledger, and where the connection went on, a remark."""
        what = f"{missing.frames} frames were not recorded" if missing.frames else "nothing was recorded"
        reason = f"{', '.join(missing.channels)}: {what}: {missing.reason}"
        self._ledger.record("unrecorded", "", missing.from_ms, missing.to_ms, messages=missing.frames, reason=reason)
        if missing.frames:
            notes = [
                TopicNote(name, instrument, "gap", f"{what}: {missing.reason}", partial=True)
                for name in missing.channels
                if (channel := self._board.catalogue.get(name)) is not None
                for instrument in channel.instruments or ("",)
            ]
            self._moments.append((at_ms, TopicNotes(tuple(notes))))

    def _look(self, until_ms: float) -> None:
        """Look after the channels at all moments that have come, the last of them no later than this."""
        while self._look_ms <= until_ms:
            if self._look_ms - self._last_ms > HOLE_MS:
                # What is passed over is not looked at either: where that ends does not depend on the speed.
                self._look_ms += int(until_ms - self._look_ms) // LOOK_MS * LOOK_MS
            self._hand_over()
            self.clock.position_ms = self._look_ms
            self._watch.look(self._look_ms / 1000)
            self._look_ms += LOOK_MS

    def _hand_over(self) -> None:
        if self._moments:
            moments, self._moments = self._moments, []
            self.clock.position_ms = moments[-1][0]
            self._sequencer.play(moments)

    def _end(self, why: str) -> None:
        """Tell every channel's clients that nothing more comes."""
        end_ms = max(self._playback.span.to_ms, self._last_ms)
        self._look(end_ms)
        self.clock.position_ms = end_ms
        channels = [channel for channel in self._board.catalogue if not channel.kind.made_of]
        self._sequencer.play([(end_ms, StateChange(channel.name, "down", why)) for channel in channels])
        _log.info("%s; the daemon goes on with what it has sent, until it is stopped", why)
        self.has_ended.set()
