"""Metrics for Prometheus: counters and histograms as things happen, gauges when they are scraped.

Owns the instruments in a registry, and a server for who has none. Must not choose what is measured: that is
`_runtime.measures`. Made by users. Needs the `prometheus` extra.
"""

from __future__ import annotations

from collections.abc import Iterable
from threading import Thread
from types import TracebackType
from typing import Any, Self

try:
    from prometheus_client import REGISTRY, CollectorRegistry, Counter, Histogram, start_http_server
except ModuleNotFoundError as missing:
    raise ModuleNotFoundError('The Prometheus client is missing. Run: pip install "atone[prometheus]"') from missing
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from atone._runtime.measures import COUNTERS, GAUGES, HISTOGRAMS, Measures, Metric, Tell
from atone.errors import AtoneError, DefinitionError
from atone.telemetry import CENSUS_SECONDS


class Prometheus(Measures):
    """Measure sagas into a registry, the library's own one if it is left out.

    One object serves any number of orchestrators on one store. `census_seconds` is how often unfinished sagas are
    counted; None: never, and the gauges of them are left out.

    Raises:
        DefinitionError: The registry has these metrics already.
    """

    def __init__(
        self, *, registry: CollectorRegistry = REGISTRY, census_seconds: float | None = CENSUS_SECONDS
    ) -> None:
        self.registry = registry
        super().__init__(_Instruments(registry), census_seconds)
        registry.register(_Gauges(self))

    def serve(self, port: int, *, address: str = "127.0.0.1") -> Serving:
        """Answer scrapes at `/metrics` from a thread; with port 0 the system chooses one, see `Serving.port`.

        Whoever reaches the port reads the metrics without a password: name another address with care.

        Raises:
            AtoneError: The port can't be had.
        """
        try:
            server, thread = start_http_server(port, address, self.registry)
        except (OSError, OverflowError) as error:
            raise AtoneError(
                f"Metrics can't be served at {address}:{port} ({type(error).__name__}); name a free port."
            ) from error
        return Serving(server, thread)


class Serving:
    """A server of metrics; a context manager that closes it."""

    def __init__(self, server: Any, thread: Thread) -> None:
        self._server, self._thread = server, thread
        self.port: int = server.server_port

    def close(self) -> None:
        """Answer no scrape any more."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class _Instruments:
    def __init__(self, registry: CollectorRegistry) -> None:
        try:
            self._counters = {one: Counter(_name(one), one.about, one.labels, registry=registry) for one in COUNTERS}
            self._histograms = {
                one: Histogram(_name(one), one.about, one.labels, registry=registry, buckets=one.buckets)
                for one in HISTOGRAMS
            }
        except ValueError as error:
            raise DefinitionError(
                "This registry has Atone's metrics already; give every orchestrator the same Prometheus object, "
                "or this one a registry= of its own."
            ) from error

    def counter(self, metric: Metric, labels: tuple[str, ...]) -> Tell:
        found = self._counters[metric]
        return found.labels(*labels).inc if labels else found.inc

    def histogram(self, metric: Metric, labels: tuple[str, ...]) -> Tell:
        found = self._histograms[metric]
        return found.labels(*labels).observe if labels else found.observe


class _Gauges(Collector):
    """The gauges, asked for at each scrape: what is gone from the store is gone from the page."""

    def __init__(self, measures: Measures) -> None:
        self._measures = measures

    def describe(self) -> Iterable[GaugeMetricFamily]:
        """Return their names without values, so that a second registration is noticed."""
        return [_family(metric) for metric in GAUGES]

    def collect(self) -> Iterable[GaugeMetricFamily]:
        """Return how things stand."""
        families = {metric: _family(metric) for metric in GAUGES}
        for metric, labels, value in self._measures.gauges():
            families[metric].add_metric(labels, value)
        return families.values()


def _family(metric: Metric) -> GaugeMetricFamily:
    return GaugeMetricFamily(_name(metric), metric.about, labels=metric.labels)


def _name(metric: Metric) -> str:
    """Return the metric's name here: units are spelled out, and the library adds `_total` to counters."""
    name = metric.name.replace(".", "_")
    return f"{name}_seconds" if metric.unit == "s" else name
