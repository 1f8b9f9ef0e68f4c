"""Counts for all clients of both protocols: connections, close codes, refused commands.

Only our own codes and those of RFC 6455 become labels of metrics: a peer may close with any of thousands of codes.
"""

from __future__ import annotations

from collections import Counter
from typing import Final

from connectors.metric import Samples
from protocol.codes import CloseCode, ErrorCode
from protocol.messages import Error, Format
from protocol.session import Effect, Reply

CLOSE_CODES: Final = (*sorted({1002, 1005, 1006, *map(int, CloseCode)}), 0)
"""Our own; protocol error, no code and no close frame, as a peer may cause (section 7.4.1); 0 for any other code."""


class ClientCounts:
    """Counts since the start, except `open`.

    Attributes:
        open: clients that are connected now.
        entered: clients that were welcomed.
        unopened: clients that the front door let in, but whose opening handshake failed.
        closes: closed clients, by `CLOSE_CODES`.
        commands: frames that clients sent.
        errors: commands that were answered with an error, by its code.
    """

    def __init__(self) -> None:
        self.open: Counter[Format] = Counter()
        self.entered: Counter[Format] = Counter()
        self.unopened = 0
        self.closes: Counter[int] = Counter()
        self.commands = 0
        self.errors: Counter[ErrorCode] = Counter()

    def enter(self, format: Format) -> None:
        """Count a client that is welcomed."""
        self.open[format] += 1
        self.entered[format] += 1

    def leave(self, format: Format, code: int) -> None:
        """Count the end of a welcomed client, with that close code."""
        self.open[format] -= 1
        self.closes[code if code in CLOSE_CODES else 0] += 1

    def effect(self, effect: Effect) -> None:
        """Count the effect of a command."""
        if isinstance(effect, Reply) and isinstance(effect.message, Error):
            self.errors[effect.message.code] += 1

    def measure(self, samples: Samples) -> None:
        """Add all counts."""
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
