"""CoinGecko's v3 interface: what is asked, how often, and what the answers mean. No I/O.

Sources: `coingecko/coingecko-api-oas` (endpoints, bodies), docs.coingecko.com (authentication,
errors and rate limits). Its channels tick every 10 s, but no free plan can be asked that often, and
its own caches turn more slowly. So a tick asks only when both allow it, and repeats the last body
with `cached` otherwise:

* the plan's *budget*: calls per minute without a key, credits per month with a demo key;
* the body's *lifetime*: `Cache-Control: max-age` less `Age`; after it, `If-None-Match` spares the
  body where it has not changed (304).
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Final, Literal

import msgspec
from msgspec import Meta

from connectors.base import Connector, Event, HttpUrl, PayloadError, Seconds, TopicNote, VenueSettings
from connectors.limits.rows import ANY_AGE_S, OLD_S, Ages
from connectors.poll.host import Host
from connectors.poll.poller import Poller
from connectors.poll.venue import Answer, Outcome, PollRequest
from connectors.venues.coingecko.bodies import Normaliser, market, top, trending
from connectors.venues.coingecko.errors import VENUE, explain
from protocol.channels import Channel

WAKE_SLACK_S: Final = 0.5
"""Ticks wake some milliseconds early or late, and that must not cost a whole cadence each time."""

ROOT: Final = "https://api.coingecko.com/api/v3"
PAID_ROOT: Final = "https://pro-api.coingecko.com/api/v3"
"""Paid keys are served here and only here; with one, the other root answers HTTP 400 (authentication)."""


class CoinGecko(VenueSettings, frozen=True):
    """`[connectors.coingecko]`. `api_key` is a secret, sent in a header, never in a query, which servers log.

    Figures, and rows of coins, that CoinGecko has not updated for `halted_after_s` are not passed on as today's.
    """

    base_url: HttpUrl = ROOT
    # The key does not tell its plan.
    plan: Literal["keyless", "demo", "pro", "unlimited"] = "keyless"
    # It travels as the value of an HTTP header.
    api_key: Annotated[
        str,
        Meta(
            pattern=r"^[!-~]{0,256}\Z",
            description="up to 256 printable ASCII characters without spaces",
            extra={"secret": True},
        ),
    ] = ""
    timeout_s: Seconds = 15.0
    halted_after_s: Annotated[float, Meta(ge=60, le=ANY_AGE_S)] = OLD_S

    @property
    def root(self) -> str:
        """What is asked: `base_url`, or with plan `pro` instead of its default the paid root."""
        return PAID_ROOT if self.plan == "pro" and self.base_url == ROOT else self.base_url

    @property
    def address(self) -> str:
        """The root."""
        return self.root

    def refused(self) -> Iterator[tuple[str, str]]:
        """A plan without its key, and a key without its plan."""
        if self.plan in ("demo", "pro") and not self.api_key:
            where = "api_key, the credential coingecko_api_key, or TICKERD_CONNECTORS__COINGECKO__API_KEY"
            yield "api_key", f'the key of the plan "{self.plan}" ({where})'
        if self.plan == "keyless" and self.api_key:
            where = "plan in [connectors.coingecko], or TICKERD_CONNECTORS__COINGECKO__PLAN"
            yield "plan", f'"demo" or "pro", whichever the key is of, since there is an api_key ({where})'


class Plan(msgspec.Struct, frozen=True):
    """What a kind of key allows.

    Attributes:
        name: as in the configuration.
        key_header: the header that carries the key, or "" where there is none.
        refresh_s: by channel kind, seconds between two successful calls.
        retry_s: seconds between a failed call and the next: it counts towards the minute's limit.
    """

    name: str
    key_header: str
    refresh_s: Mapping[str, float]
    retry_s: float


PLANS: Final = {
    plan.name: plan
    for plan in (
        # About 5 calls a minute for the whole address, "unstable": three are ours.
        Plan("keyless", "", {"global": 60.0, "top": 60.0, "trending": 60.0}, 60.0),
        # 10 000 credits a month: these take 8 928 in 31 days. 30 calls a minute.
        Plan("demo", "x-cg-demo-api-key", {"global": 900.0, "top": 600.0, "trending": 1_800.0}, 30.0),
        # 250 calls a minute and more.
        Plan("pro", "x-cg-pro-api-key", {}, 10.0),
        # A simulator, or a cache of one's own.
        Plan("unlimited", "", {}, 0.0),
    )
}


_WRAPPED_BYTES: Final = 16
"""What a body gains at most on its way into a message."""


class Endpoint(msgspec.Struct, frozen=True):
    """What a channel kind asks, and how the answer becomes events."""

    request: PollRequest
    normalise: Normaliser


ENDPOINTS: Final = {
    "global": Endpoint(PollRequest("/global"), market),
    "top": Endpoint(
        PollRequest(
            "/coins/markets",
            {"vs_currency": "usd", "order": "market_cap_desc", "per_page": "100", "page": "1"},
        ),
        top,
    ),
    "trending": Endpoint(PollRequest("/search/trending"), trending),
}


# ---- the poll --------------------------------------------------------------------------------------


class CoinGeckoPoll:
    """The question of one channel: `global`, `top` or `trending`.

    Args:
        channel: of one of these kinds.
        plan: what the key allows.
        refresh_s: seconds between two successful calls for this channel.
        secret: the key, to be kept out of error texts.
        halted_after_s: see `CoinGecko`.
    """

    def __init__(
        self, channel: Channel, plan: Plan, *, refresh_s: float, secret: str = "", halted_after_s: float = OLD_S
    ) -> None:
        self.retry_s = plan.retry_s
        self._channel = channel.name
        endpoint = ENDPOINTS[channel.kind.name]
        self._normalise = endpoint.normalise
        # The body is what goes onto the tape, so it has the same bound.
        most_bytes = channel.kind.most_bytes - _WRAPPED_BYTES
        self._request = msgspec.structs.replace(endpoint.request, most_bytes=most_bytes)
        self._refresh_s = refresh_s
        self._secret = secret
        self._ages = Ages(halted_after_s)
        self._events: list[Event] = []
        self._notes: list[TopicNote] = []
        self._etag = ""
        self._lifetime_s = 0.0
        self._asked_s = 0.0
        self._ask_at_s = -math.inf
        self._cadence_s = cadence_s = channel.cadence_s or 0.0
        self.notice = ""
        if refresh_s > cadence_s > 0:
            every_s = math.ceil(refresh_s / cadence_s) * cadence_s
            self.notice = f"{VENUE} {plan.name}: asking every {every_s:g} s"

    def tick(self, now_s: float) -> Outcome:
        """The last body once more while it will do, or a request for the next.

        After a failed poll nothing is repeated: the body had had its time before that poll.
        """
        if (self._events or self._notes) and now_s < self._ask_at_s:
            return Outcome(events=self._repeated(), notes=self._notes)
        self._asked_s = now_s
        request = self._request
        if self._events and self._etag:
            request = msgspec.structs.replace(request, headers={"If-None-Match": self._etag})
        return Outcome(requests=[request])

    def answer(self, request: PollRequest, answer: Answer) -> Outcome:
        """One event, fresh or (304) confirmed. Raises: see `Poll`."""
        if answer.status == 304 and self._events:
            self._fresh(answer)
            return Outcome(events=self._good_for(answer, self._repeated()), notes=self._notes)
        malformed: PayloadError | None = None
        if 200 <= answer.status < 300:
            try:
                rows = self._normalise(
                    answer.body,
                    channel=self._channel,
                    received_ms=answer.received_ms,
                    ages=self._ages,
                    venue_ms=answer.server_ms,
                )
            except PayloadError as error:
                malformed = error
            else:
                self._events, self._notes = rows.events, rows.notes
                self._etag = answer.headers.get("etag", "")
                self._lifetime_s = 0.0
                self._fresh(answer)
                return Outcome(events=self._good_for(answer, rows.events), notes=rows.notes)
        explained = explain(answer, self._secret) or malformed
        raise explained or PayloadError(f"unexpected answer (HTTP {answer.status})")

    def _fresh(self, answer: Answer) -> None:
        """Hold the body for its plan's and its own time; a 304 that names none renews the old one."""
        if (lifetime_s := answer.lifetime_s) is not None:
            self._lifetime_s = lifetime_s
        self._ask_at_s = max(self._asked_s + self._refresh_s - WAKE_SLACK_S, answer.at_s + self._lifetime_s)

    def _good_for(self, answer: Answer, events: list[Event]) -> list[Event]:
        """Events that say for how long they may be repeated: at least until the next tick."""
        lifetime_s = max(self._ask_at_s - answer.at_s, self._cadence_s, WAKE_SLACK_S)
        return [msgspec.structs.replace(event, lifetime_s=lifetime_s) for event in events]

    def _repeated(self) -> list[Event]:
        return [msgspec.structs.replace(event, cached=True) for event in self._events]


def build(channels: Sequence[Channel], settings: CoinGecko, user_agent: str) -> list[Connector]:
    """One poller per channel, all of one host, their first polls spread over the first second.

    Channels of one kind share the budget that the plan has for that kind.

    Raises:
        ValueError: a channel has no cadence.
    """
    plan, key = PLANS[settings.plan], settings.api_key
    headers = {plan.key_header: key} if plan.key_header and key else {}
    # Libraries' default agents are answered 403.
    host = Host(
        VENUE,
        settings.root,
        timeout_s=settings.timeout_s,
        user_agent=user_agent,
        headers=headers,
        proxy=settings.proxy,
    )
    of_kind = Counter(channel.kind.name for channel in channels)
    connectors: list[Connector] = []
    for position, channel in enumerate(channels):
        refresh_s = plan.refresh_s.get(channel.kind.name, 0.0) * of_kind[channel.kind.name]
        poll = CoinGeckoPoll(channel, plan, refresh_s=refresh_s, secret=key, halted_after_s=settings.halted_after_s)
        connectors.append(Poller(channel, poll, host, delay_s=position / len(channels)))
    return connectors
