"""The client of tickerd for Python, on trio; `tickerd.asyncio` has the one for asyncio.

    from tickerd import Gap, Lost, PriceUpdate, connect

    async with connect("ws://127.0.0.1:8000/ws") as client:
        async for message in client.subscribe("bitcoinprice"):
            ...

Importing this loads neither the daemon nor, until `connect` and its like are asked for, trio.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from daemon import client as _client

if TYPE_CHECKING:
    from daemon.client import *  # noqa: F403 # they are named in its `__all__`

__all__: list[str] = []
__all__ += _client.__all__


if not TYPE_CHECKING:  # or every name would be right for a type checker

    def __getattr__(name: str) -> object:  # a module's own, PEP 562
        if name not in __all__:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        return getattr(_client, name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
