"""What is counted and timed, in the text format of Prometheus."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    generate_latest,
)

SECONDS = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0)
STAGE_SECONDS = (0.0001, 0.0002, 0.0005, *SECONDS[1:9])


class Meters:
    """The server's own registry; names begin with adstool_, those of the process with process_."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.started = time.monotonic()
        self.requests = Counter(
            "adstool_requests", "HTTP requests answered.", ["route", "status"], registry=self.registry
        )
        self.seconds = Histogram(
            "adstool_request_seconds",
            "From the head of a request to its answer.",
            ["route"],
            buckets=SECONDS,
            registry=self.registry,
        )
        self.stage_seconds = Histogram(
            "adstool_stage_seconds",
            "Each stage of the funnel for one slate.",
            ["stage"],
            buckets=STAGE_SECONDS,
            registry=self.registry,
        )
        self.slates = Counter("adstool_slates", "Slates ranked, late ones too.", registry=self.registry)
        self.fallbacks = Counter(
            "adstool_fallbacks",
            "Slates for which a stage failed and another order served.",
            ["stage"],
            registry=self.registry,
        )
        self.refused = Counter(
            "adstool_refused",
            "Requests without an answer: queue_full, deadline_waiting, deadline_ranked, ...",
            ["reason"],
            registry=self.registry,
        )
        self.in_flight = Gauge("adstool_in_flight", "Requests under way.", registry=self.registry)
        self.swaps = Counter("adstool_model_swaps", "Newer models taken into use.", registry=self.registry)
        self.log_written = Counter(
            "adstool_log_rows_written", "Candidates written to the funnel log.", registry=self.registry
        )
        self.log_dropped = Counter(
            "adstool_log_rows_dropped", "Candidates lost to the limit of memory.", registry=self.registry
        )
        self._models = Gauge(
            "adstool_model_info", "The runs that serve.", ["model", "run"], registry=self.registry
        )
        ProcessCollector(registry=self.registry)

    def gauge(self, name: str, text: str, value: Callable[[], float]) -> None:
        """A number that is looked up whenever the metrics are."""
        Gauge(name, text, registry=self.registry).set_function(value)

    def ranked(self, slate: Mapping[str, Any]) -> None:
        """One slate was made: how long each stage took, and which of them failed."""
        self.slates.inc()
        for stage, ms in slate["latency_ms"].items():
            self.stage_seconds.labels(stage).observe(ms / 1e3)
        for fallback in slate.get("fallbacks", ()):
            self.fallbacks.labels(fallback["stage"]).inc()

    def answered(self, route: str, status: int, seconds: float) -> None:
        """One request was answered."""
        self.requests.labels(route, str(status)).inc()
        self.seconds.labels(route).observe(seconds)

    def serving(self, runs: Mapping[str, str]) -> None:
        """These runs serve from now on."""
        if any(metric.samples for metric in self._models.collect()):
            self.swaps.inc()
        self._models.clear()
        for model, run in runs.items():
            self._models.labels(model, run).set(1)

    def text(self) -> bytes:
        """Everything, as Prometheus reads it."""
        text: bytes = generate_latest(self.registry)
        return text

    def summary(self) -> dict[str, float]:
        """What a server says of itself when it ends."""
        by_status = {"answered": 0, "refused": 0, "failed": 0}
        for sample in [one for metric in self.requests.collect() for one in metric.samples]:
            if sample.name.endswith("_total"):
                status = int(sample.labels["status"])
                kind = "answered" if status < 400 else "refused" if status != 500 else "failed"
                by_status[kind] += int(sample.value)
        value = self.registry.get_sample_value
        return {
            "requests": sum(by_status.values()),
            **by_status,
            "slates": int(value("adstool_slates_total") or 0),
            "log_rows": int(value("adstool_log_rows_written_total") or 0),
            "log_rows_dropped": int(value("adstool_log_rows_dropped_total") or 0),
            "seconds": round(time.monotonic() - self.started, 3),
        }
