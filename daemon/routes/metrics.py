"""`GET /metrics`: what the daemon does and how it feels, for Prometheus.

They are asked once a second at most, however often and in whatever format somebody asks: all of them together cost as
much as ten plain requests. `Last-Modified` says when that was.

Nothing is measured here but the process. Every component counts for itself, and adds its numbers when somebody asks
(`connectors.metric`); this file writes them out.

The registry is this object's own, so that two daemons in one process do not meet in prometheus_client's global one.
"""

from __future__ import annotations

import email.utils
import math
import platform
import re
import time
from collections.abc import Callable, Iterator
from typing import Final

import trio
from prometheus_client import CollectorRegistry
from prometheus_client.core import InfoMetricFamily, Metric
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector

from connectors.metric import Samples
from daemon.front.request import Headers, Request, Response
from daemon.host.logs import dropped_count
from daemon.host.usage import process_usage

_TEXT: Final = choose_encoder("")
_OPENMETRICS: Final = choose_encoder("application/openmetrics-text; version=1.0.0")
"""An encoder and its content type. prometheus_client (0.26) is not asked about a client's own header: it fails on a
version that is no number, and repeats it in the answer's head."""

FRESH_S: Final = 1.0
"""For so long an answer is given again."""

_QUALITY: Final = re.compile(r"q=([01](?:\.[0-9]{0,3})?)")


class Metrics(Collector):
    """Asks the components when it is asked."""

    def __init__(self, version: str) -> None:
        """`version` is that of the daemon."""
        self._version = version
        self._components: list[Callable[[Samples], None]] = []
        self._started_s = time.time()
        self._registry = CollectorRegistry()
        self._registry.register(self)
        self._made_s = -math.inf
        self._made: list[Metric] = []
        self._texts: dict[str, bytes] = {}
        self._headers: Headers = ()

    def include(self, *components: Callable[[Samples], None]) -> None:
        """Ask these too: each adds what it has counted."""
        self._components += components

    def answer(self, request: Request) -> Response:
        """In the text format, or as OpenMetrics where the client would rather have that. No checkpoint."""
        encode, content_type = _OPENMETRICS if _prefers_openmetrics(request) else _TEXT
        now_s = trio.current_time()
        if now_s - self._made_s >= FRESH_S:
            self._made_s, self._made = now_s, list(self._measured())
            self._texts.clear()
            self._headers = (("Last-Modified", email.utils.formatdate(usegmt=True)),)
        text = self._texts.get(content_type)
        if text is None:
            text = self._texts[content_type] = encode(self._registry)
        return Response(200, text, content_type, self._headers)

    def describe(self) -> Iterator[Metric]:
        """Nothing: what there is to ask is known when somebody asks."""
        yield from ()

    def collect(self) -> Iterator[Metric]:
        """Everything, as it was when it was asked last."""
        yield from self._made

    def _measured(self) -> Iterator[Metric]:
        """Everything, as of now. To be called inside trio."""
        build = {"version": self._version, "python": platform.python_version()}
        yield InfoMetricFamily("tickerd_build", "What runs.", value=build)
        samples = Samples()
        for measure in (*self._components, self._process):
            measure(samples)
        yield from samples

    def _process(self, samples: Samples) -> None:
        samples.value("tickerd_tasks", "Tasks of trio.", trio.lowlevel.current_statistics().tasks_living)
        dropped = "Lines that the log's reader was too slow for."
        samples.count("tickerd_log_lines_dropped", dropped, dropped_count())
        usage = process_usage()
        samples.count("process_cpu_seconds", "Total user and system CPU time spent in seconds.", usage.cpu_s)
        if usage.resident_bytes is not None:
            samples.value("process_resident_memory_bytes", "Resident memory size in bytes.", usage.resident_bytes)
        if usage.open_files is not None:
            samples.value("process_open_fds", "Number of open file descriptors.", usage.open_files)
        samples.value("process_max_fds", "Maximum number of open file descriptors.", usage.most_files)
        started = "Start time of the process since unix epoch in seconds."
        samples.value("process_start_time_seconds", started, self._started_s)


def _prefers_openmetrics(request: Request) -> bool:
    """Whether the `Accept` header (RFC 9110 section 12.5.1) has OpenMetrics at least as high as plain text."""
    quality = {"application/openmetrics-text": 0.0, "text/plain": 0.0}
    for item in request.tokens("accept"):
        kind, *parameters = (part.strip() for part in item.lower().split(";"))
        if kind in quality:
            found = [float(match[1]) for part in parameters if (match := _QUALITY.fullmatch(part))]
            quality[kind] = max(quality[kind], min(found, default=1.0))
    return quality["application/openmetrics-text"] >= max(quality["text/plain"], 0.001)
