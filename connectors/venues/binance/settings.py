"""`[connectors.binance]`: what Binance's connectors can be told."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta

from connectors.base import HttpUrl, Seconds, VenueSettings, WebsocketUrl
from connectors.limits.rows import ANY_AGE_S, OLD_S


class Binance(VenueSettings, frozen=True):
    """`base_url` is without `/api/v3`, `stream_url` without `/stream`; both hosts serve public data only.

    `levels` are those of a polled book, on each side. A pair whose `closeTime` is older than `halted_after_s` is not
    trading. Binance closes a stream's connection after 24 hours, so it is replaced before (`rotate_after_s`).
    """

    base_url: HttpUrl = "https://data-api.binance.vision"
    levels: Annotated[int, Meta(ge=1, le=100)] = 20
    timeout_s: Seconds = 15.0
    halted_after_s: Annotated[float, Meta(ge=60, le=ANY_AGE_S)] = OLD_S
    stream_url: WebsocketUrl = "wss://data-stream.binance.vision"
    silence_s: Seconds = 30.0
    rotate_after_s: Annotated[float, Meta(ge=60, le=86_400)] = 82_800.0
