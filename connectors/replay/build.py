"""Makes of a recording's header the venue objects that were there when it was made."""

from __future__ import annotations

from collections.abc import Sequence
from math import inf
from pathlib import Path

import msgspec

from connectors.base import Connector, VenueSettings
from connectors.capture.described import Unreadable, restored
from connectors.capture.lines import Header, Line
from connectors.capture.reading import RecordingError
from connectors.poll.poller import Poller
from connectors.push.feed import Feed
from connectors.replay.items import Item, Stage
from connectors.replay.polled import PolledStage
from connectors.replay.pushed import PushedStage
from connectors.venues.registry import VENUES
from protocol.channels import Channel


class SilentStage:
    """Of a connector that brings no data: a venue's list of instruments, say."""

    due_ms = inf

    def frames(self, connection: int, payloads: list[bytes], at_ms: int) -> list[Item]:
        """Nothing."""
        return []

    def take(self, line: Line, at_ms: int) -> list[Item]:
        """Nothing."""
        return []

    def tick(self, at_ms: int) -> list[Item]:
        """Nothing."""
        return []

    def gone(self, reason: str) -> list[Item]:
        """Nothing."""
        return []

    def restated(self, at_ms: int) -> list[Item]:
        """Nothing."""
        return []


class Builder:
    """Makes the stages of one playback. Connectors of one venue and run are made together, as they were."""

    def __init__(self) -> None:
        self._made: dict[bytes, dict[str, Connector]] = {}

    def stage(self, header: Header, path: Path) -> Stage:
        """The stage of this header's connector; `path` is named in errors.

        Raises:
            RecordingError: the venue is not known, or cannot use what is configured.
        """
        key = msgspec.json.encode(msgspec.structs.replace(header, connector="", carries=()))
        made = self._made.get(key)
        if made is None:
            connectors = _connectors(header, path)
            made = self._made[key] = {connector.name: connector for connector in connectors}
        connector = made.pop(header.connector, None)
        if isinstance(connector, Feed):
            return PushedStage(connector)
        return PolledStage(connector) if isinstance(connector, Poller) else SilentStage()


def channels_of(header: Header, path: Path) -> Sequence[Channel]:
    """The channels that a header tells of. Raises: RecordingError."""
    try:
        return [restored(values) for values in header.channels]
    except Unreadable as error:
        raise RecordingError(f"{path}: {error}") from None


def _connectors(header: Header, path: Path) -> list[Connector]:
    venue = VENUES.get(header.venue)
    if venue is None:
        raise RecordingError(f"{path}: a recording of {header.venue!r}; known venues are {', '.join(VENUES)}")
    known = {key: value for key, value in header.settings.items() if key in venue.settings.__struct_fields__}
    try:
        # Nobody is called, so the way there does not matter.
        settings: VenueSettings = msgspec.convert(known | {"proxy": ""}, venue.settings)
        own = [channel for channel in channels_of(header, path) if channel.exchange == header.venue]
        return venue.build(own, settings, "replay")
    except (ValueError, msgspec.ValidationError) as error:
        raise RecordingError(f"{path}: {venue.title} cannot use what is configured there: {error}") from None
