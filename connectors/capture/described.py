"""Channels in a recording's header: as plain values, and back. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from protocol.channels import Channel
from protocol.kinds import KINDS


class Unreadable(Exception):
    """A header describes something that this version does not know. `str()` says what."""


def described(channel: Channel) -> dict[str, object]:
    """A channel as plain values; its kind by name."""
    values: dict[str, object] = {
        name: msgspec.to_builtins(getattr(channel, name)) for name in channel.__struct_fields__ if name != "kind"
    }
    return values | {"kind": channel.kind.name}


def restored(values: Mapping[str, Any]) -> Channel:
    """The channel of these values; what is unknown beside them is left out.

    Raises:
        Unreadable: they describe none.
    """
    name = str(values.get("kind", ""))
    kind = KINDS.get(name)
    if kind is None:
        raise Unreadable(f"the channel {values.get('name')!r} is of kind {name!r}; known are {', '.join(KINDS)}")
    known = {key: value for key, value in values.items() if key in Channel.__struct_fields__ and key != "kind"}
    try:
        return Channel(kind=kind, **known | {"instruments": tuple(known.get("instruments", ()))})
    except TypeError as error:
        raise Unreadable(f"the channel {values.get('name')!r} cannot be read: {error}") from None
