"""Binance Spot's public REST interface: what is asked, and what the answers mean. No I/O.

Sources are in `binance/binance-spot-api-docs`: rest-api.md (endpoints, limits, HTTP codes),
errors.md (error codes), faqs/market_data_only.md (the host that serves public data only).

Binance counts *request weight* per address: 6 000 a minute. The default channels use about 66 of
them. Who goes on after HTTP 429 is banned (418), first for 2 minutes, in the end for 3 days.
"""

from __future__ import annotations

import math
import re
from typing import Final

import msgspec

from connectors.backoff import LONGEST_ASKED_S, LONGEST_WAIT_S, granted_s
from connectors.base import (
    ConnectorError,
    PayloadError,
    Rows,
    TopicNote,
    VenueRefused,
    VenueThrottled,
    VenueUnavailable,
)
from connectors.limits.payload import brief, read
from connectors.limits.rows import OLD_S, Ages
from connectors.poll.venue import Answer, Budget, Outcome, Pause, PollRequest
from connectors.set_aside import SetAside, in_words
from connectors.venues.binance.bodies import book, short, tickers, whole
from protocol.channels import Channel

VENUE: Final = "Binance"

BATCH: Final = 20
"""Most symbols in one request for tickers: up to 20 weigh 2, 21 to 100 weigh 40."""

WEIGHT_LIMIT: Final = 6_000
"""Request weight per minute and address, since 2023-08-25."""

WEIGHT_HELD_BACK: Final = 4_800
"""Used weight from which on nothing more is asked in this minute: others may share the address."""

PAUSE_S: Final = {429: 60.0, 418: 120.0}
"""Rest where the answer names none: the limit's window; the shortest ban."""

UNKNOWN_CODES: Final = frozenset({-1121, -1100})
"""`Invalid symbol.`; `Illegal characters found in parameter`. Neither says which symbol it was."""

OF_THE_REQUEST: Final = (*range(-1199, -1099), -1220)
"""errors.md, "11xx - Request issues", and `The symbol does not match the status`: this request is refused, perhaps
for one of its symbols."""

_BANNED_UNTIL = re.compile(r"banned until ([0-9]{13})\b")


class Refusal(msgspec.Struct):
    """The body of every error: `{"code":-1121,"msg":"Invalid symbol."}`."""

    code: int = 0
    msg: str = ""


def venue_symbol(instrument: str) -> str:
    """Binance's spelling: `BTC/USDT` is `BTCUSDT`. There is no way back but to remember."""
    return instrument.replace("/", "").upper()


# ---- errors ----------------------------------------------------------------------------------------


def refusal(body: bytes) -> Refusal:
    """The error that a body states; an empty one where it states none (the firewall sends HTML)."""
    try:
        return read(body, Refusal)
    except PayloadError:
        return Refusal()


def explain(answer: Answer) -> ConnectorError:
    """What an answer that is no success means for the connector (rest-api.md, "HTTP Return Codes")."""
    said = refusal(answer.body)
    words = f": {brief(said.msg)}" if said.msg else ""
    status = answer.status
    if status in PAUSE_S or said.code == -1003:
        pause_s = max(1.0, _pause_s(answer, said))
        return VenueThrottled(f"{VENUE} asked for a pause of {pause_s:.0f} s (HTTP {status})", retry_after_s=pause_s)
    if status == 451:
        return VenueRefused(
            f"{VENUE} does not serve this region at this address (HTTP 451); "
            "https://data-api.binance.vision as [connectors.binance] base_url may"
        )
    if status == 403:
        return VenueRefused(f"{VENUE}'s firewall refused the request (HTTP 403)")
    if status >= 500 or status == 408:
        return VenueUnavailable(f"{VENUE} is in trouble (HTTP {status}{words})", retry_after_s=answer.retry_after_s)
    if 300 <= status < 400:
        return VenueRefused(f"{VENUE} has moved to another address (HTTP {status})")
    return VenueRefused(f"{VENUE} refused the request (HTTP {status}{words})")


def _pause_s(answer: Answer, said: Refusal) -> float:
    """What it asks for: up to the longest ban where it is one, else up to an hour."""
    until = _BANNED_UNTIL.search(said.msg)
    longest_s = LONGEST_WAIT_S if until or answer.status == 418 else LONGEST_ASKED_S
    asked_s = answer.retry_after_up_to_s(longest_s)
    if asked_s is None and until:
        asked_s = granted_s((int(until[1]) - answer.server_ms) / 1_000)
    return PAUSE_S.get(answer.status, PAUSE_S[429]) if asked_s is None else asked_s


def weight_pause(answer: Answer) -> Pause | None:
    """A rest until the minute turns, where the address has used most of its request weight."""
    budget = weight_budget(answer)
    if budget is None or budget.used < WEIGHT_HELD_BACK:
        return None
    left_s = 60.0 - answer.server_ms / 1_000 % 60.0
    return Pause(
        left_s,
        f"{VENUE}'s request weight is nearly used up ({budget.used} of {WEIGHT_LIMIT} "
        "in this minute); going on when the minute turns",
    )


def weight_budget(answer: Answer) -> Budget | None:
    """How much request weight the address has used in this minute, whoever used it; None where it is not said."""
    used = answer.headers.get("x-mbx-used-weight-1m", "")
    return Budget(int(used[:9]), WEIGHT_LIMIT) if used.isdecimal() else None


# ---- the poll --------------------------------------------------------------------------------------


class BinancePoll:
    """The questions of one channel: `prices`, `24hr` or `orderbook`.

    One unknown symbol makes Binance refuse the whole batch without saying which (-1121), so a
    refused batch is halved until the symbol is found; then it is set aside (`SetAside`). What is asked
    for again after a refusal has requests of its own, so that the others need not be halved again.

    Args:
        channel: of one of these kinds.
        levels: levels of a book on each side.
    """

    retry_s = 0.0
    notice = ""

    def __init__(self, channel: Channel, levels: int, halted_after_s: float = OLD_S) -> None:
        self._channel = channel
        self._levels = levels
        self._instruments = {venue_symbol(name): name for name in channel.instruments}
        self._ages = Ages(halted_after_s)
        self._aside = SetAside()

    def _refused(self) -> list[TopicNote]:
        """Which instruments are set aside."""
        notes = []
        for name in self._aside:
            if aside := self._aside.get(name):
                again = f"{aside.reason} (set aside, asked again after {in_words(aside.wait_s)})"
                notes.append(TopicNote(self._channel.name, name, "refused", again))
        return notes

    def tick(self, now_s: float) -> Outcome:
        """Everything that is not set aside, in as few requests as the weights allow.

        Raises:
            VenueRefused: everything is set aside.
        """
        self._aside.release(now_s)
        asked = self._known(now_s)
        size = 1 if self._channel.kind.name == "orderbook" else BATCH
        groups = (
            [name for name in asked if not self._aside.is_suspect(name)],
            [name for name in asked if self._aside.is_suspect(name)],
        )
        batches = [tuple(group[at : at + size]) for group in groups for at in range(0, len(group), size)]
        return Outcome(requests=[self._request(batch) for batch in batches], notes=self._refused())

    def answer(self, request: PollRequest, answer: Answer) -> Outcome:
        """Events; or the halves of a batch that holds an unknown symbol. Raises: see `Poll`."""
        pause = weight_pause(answer)
        if 200 <= answer.status < 300:
            try:
                rows = self._rows(request, answer)
            except PayloadError:
                # A refusal by another status than its own is a refusal all the same.
                if not refusal(answer.body).code:
                    raise
            else:
                for name in request.instruments:
                    self._aside.served(name)
                return Outcome(rows.events, pause=pause, budget=weight_budget(answer), notes=rows.notes)
        said = refusal(answer.body)
        if answer.status in PAUSE_S or answer.status >= 500 or said.code not in OF_THE_REQUEST:
            raise explain(answer)
        batch = request.instruments
        if len(batch) > 1:
            half = len(batch) // 2
            halves = [self._request(batch[:half]), self._request(batch[half:])]
            return Outcome(requests=halves, pause=pause)
        unknown = said.code in UNKNOWN_CODES
        reason = f"unknown to {VENUE}" if unknown else f"refused by {VENUE} ({said.code} {brief(said.msg)})"
        self._aside.refused(batch[0], reason, answer.at_s)
        self._known(answer.at_s)
        return Outcome(pause=pause, notes=self._refused())

    def _known(self, now_s: float) -> list[str]:
        """Raises: VenueRefused, where nothing is left to ask for; with the time until the first may be asked for."""
        names = list(self._instruments.values())
        known = [name for name in names if name not in self._aside]
        if not known:
            asides = [aside for name in names if (aside := self._aside.get(name))]
            why = " and ".join(self._aside.reasons()) or f"unknown to {VENUE}"
            until_s = min((aside.until_s for aside in asides), default=math.inf)
            wait_s = None if until_s == math.inf else max(0.0, until_s - now_s)
            raise VenueRefused(f"{why}: {', '.join(names) or 'no instruments'}", retry_after_s=wait_s)
        return known

    def _request(self, batch: tuple[str, ...]) -> PollRequest:
        symbols = [venue_symbol(instrument) for instrument in batch]
        most_bytes = len(batch) * self._channel.kind.most_bytes
        if self._channel.kind.name == "orderbook":
            params = {"symbol": symbols[0], "limit": str(self._levels)}
            return PollRequest("/api/v3/depth", params, instruments=batch, most_bytes=most_bytes)
        # A JSON array without a space, or Binance answers -1100.
        params = {"symbols": msgspec.json.encode(symbols).decode()}
        return PollRequest("/api/v3/ticker/24hr", params, instruments=batch, most_bytes=most_bytes)

    def _rows(self, request: PollRequest, answer: Answer) -> Rows:
        """Raises: PayloadError."""
        name, received_ms = self._channel.name, answer.received_ms
        asked = {venue_symbol(instrument): instrument for instrument in request.instruments}
        if self._channel.kind.name == "orderbook":
            ((symbol, instrument),) = asked.items()
            return book(answer.body, channel=name, instrument=instrument, symbol=symbol, received_ms=received_ms)
        return tickers(
            answer.body,
            whole if self._channel.kind.name == "24hr" else short,
            channel=name,
            instruments=asked,
            received_ms=received_ms,
            ages=self._ages,
            venue_ms=answer.server_ms,
        )
