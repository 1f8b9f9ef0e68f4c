"""What is counted of all clients together, whatever they speak: who came, how they went, what they asked in vain.

The codes that become labels of metrics are ours, or those of RFC 6455: a peer may close with any of some thousands.
"""

from __future__ import annotations

from collections import Counter
from typing import Final

from connectors.metric import Samples
from protocol.codes import CloseCode, ErrorCode
from protocol.messages import Error, Format
from protocol.session import Effect, Reply

CLOSE_CODES: Final = (*sorted({1002, 1005, 1006, *map(int, CloseCode)}), 0)
"""Ours; a protocol error, no code and no close frame, as the peer may leave it (section 7.4.1); and 0 for any other."""


class ClientCounts:
    """Counts since the start, but for `open`.

    Attributes:
        open: clients there are now.
        entered: clients that were welcomed.
        unopened: clients that the front door had let in, and whose opening handshake failed.
        closes: how clients ended, by `CLOSE_CODES`.
        commands: frames that clients sent.
        errors: what was answered with an error.
    """

    def __init__(self) -> None:
        self.open: Counter[Format] = Counter()
        self.entered: Counter[Format] = Counter()
        self.unopened = 0
        self.closes: Counter[int] = Counter()
        self.commands = 0
        self.errors: Counter[ErrorCode] = Counter()

    def enter(self, format: Format) -> None:
        """A client was welcomed."""
        self.open[format] += 1
        self.entered[format] += 1

    def leave(self, format: Format, code: int) -> None:
        """A client that had been welcomed is gone, with that close code."""
        self.open[format] -= 1
        self.closes[code if code in CLOSE_CODES else 0] += 1

    def effect(self, effect: Effect) -> None:
        """What a command came to."""
        if isinstance(effect, Reply) and isinstance(effect.message, Error):
            self.errors[effect.message.code] += 1

    def measure(self, samples: Samples) -> None:
        """Add all of them."""
        clients = samples.gauge("tickerd_clients", "Clients that are connected, by what they speak.", "format")
        entered = samples.counter("tickerd_sessions", "Clients that were welcomed.", "format")
        for format in Format:
            clients.add_metric([format.name.lower()], self.open[format])
            entered.add_metric([format.name.lower()], self.entered[format])
        samples.count("tickerd_handshakes_failed", "Opening handshakes that clients did not complete.", self.unopened)
        closes = {str(code or "other"): self.closes[code] for code in CLOSE_CODES}
        samples.counts("tickerd_closes", "Clients that are gone, by close code.", "code", closes)
        samples.count("tickerd_commands", "Frames that clients sent.", self.commands)
        errors = {code.value: self.errors[code] for code in ErrorCode}
        samples.counts("tickerd_command_errors", "Commands that were answered with an error.", "code", errors)
