"""From a normalised event to the message that stands on the tape."""

from __future__ import annotations

from msgspec import UNSET, Raw

from connectors.base import Event
from protocol.channels import Channel
from protocol.messages import DATA_TYPES, encode, number


def stamped(event: Event, channel: Channel, timestamp: str, seq: int, prev_seq: int) -> bytes:
    """The message as JSON. `seq` is its place, `prev_seq` that of its topic's last message.

    Raises:
        ValueError: its price is no number.
    """
    return encode(
        DATA_TYPES[channel.type](
            connector_id=event.channel,
            exchange=channel.exchange,
            instrument=event.instrument or UNSET,
            price=number(event.price) if event.price else UNSET,
            timestamp=timestamp,
            seq=seq,
            prev_seq=prev_seq,
            exchange_ms=UNSET if event.exchange_ms is None else event.exchange_ms,
            received_ms=event.received_ms,
            cached=event.cached,
            data=Raw(event.data),
        )
    )
