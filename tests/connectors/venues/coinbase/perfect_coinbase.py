"""A Coinbase that makes no mistake: its books, and what it sends on each connection, frame by frame."""

from __future__ import annotations

from typing import NamedTuple

import msgspec

from protocol.messages import encode

Ladders = dict[str, dict[str, str]]
"""Price to quantity, of `bid` and of `offer`."""

TIME = "2026-04-07T14:30:02.789012345Z"
TIME_MS = 1_775_572_202_789


def frame(channel: str, number: int, *events: object, time: str = TIME) -> bytes:
    """A frame as Coinbase writes it."""
    return encode({"channel": channel, "timestamp": time, "sequence_num": number, "events": events})


def levels(*changes: tuple[str, str, str], time: str = TIME) -> list[dict[str, str]]:
    """Side, price and quantity of each."""
    return [
        {"side": side, "event_time": time, "price_level": price, "new_quantity": quantity}
        for side, price, quantity in changes
    ]


def book(type_: str, product: str, *changes: tuple[str, str, str], time: str = TIME) -> dict[str, object]:
    """An event of `l2_data`."""
    return {"type": type_, "product_id": product, "updates": levels(*changes, time=time)}


class Sent(NamedTuple):
    """A frame, its number, and the books as they were when it was sent."""

    payload: bytes
    number: int
    books: dict[str, Ladders]


class Wire:
    """One connection: what it is subscribed to, and what was sent and has not arrived."""

    def __init__(self, venue: PerfectCoinbase) -> None:
        self.held: dict[str, list[str]] = {}
        self.sent: list[Sent] = []
        self._venue = venue
        self._number = 0

    def send(self, channel: str, *events: object) -> None:
        """A frame of the next number."""
        books = {product: {side: dict(of) for side, of in both.items()} for product, both in self._venue.books.items()}
        self.sent.append(Sent(frame(channel, self._number, *events), self._number, books))
        self._number += 1


class PerfectCoinbase:
    """The books of some products, and the connections."""

    def __init__(self, *products: str) -> None:
        self.books: dict[str, Ladders] = {product: {"bid": {}, "offer": {}} for product in products}
        self.wires: list[Wire] = []

    def connect(self) -> Wire:
        """One more connection."""
        wire = Wire(self)
        self.wires.append(wire)
        return wire

    def change(self, product: str, *changes: tuple[str, str, str]) -> None:
        """Levels change, and all who are subscribed are told in one frame."""
        for side, price, quantity in changes:
            if float(quantity) == 0:
                self.books[product][side].pop(price, None)
            else:
                self.books[product][side][price] = quantity
        for wire in self.wires:
            if product in wire.held.get("level2", ()):
                wire.send("l2_data", book("update", product, *changes))

    def beat(self) -> None:
        """A second has passed."""
        for wire in self.wires:
            if "heartbeats" in wire.held:
                wire.send("heartbeats", {"current_time": "2026-04-07 14:30:02", "heartbeat_counter": 1})

    def hear(self, wire: Wire, command: str) -> None:
        """A client's request."""
        asked = msgspec.json.decode(command)
        channel = asked["channel"]
        held = wire.held.setdefault(channel, [])
        for product in asked.get("product_ids", ["heartbeats"]):
            if asked["type"] == "unsubscribe":
                wire.held[channel] = held = [other for other in held if other != product]
            elif product not in held:
                held.append(product)
                if channel == "level2":
                    whole = [(side, *level) for side, each in self.books[product].items() for level in each.items()]
                    wire.send("l2_data", book("snapshot", product, *whole))
        wire.send("subscriptions", {"subscriptions": wire.held})
