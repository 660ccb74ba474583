"""What `atone worker` is heard by: metrics at a port, OpenTelemetry, events in the log, each if it was asked for.

Owns the way from options to observers, and what is said when an extra is missing. Must not measure anything itself.
Called by `working`.
"""

from __future__ import annotations

import logging
from contextlib import ExitStack
from importlib.util import find_spec

from atone.cli.exits import Exit, Stop
from atone.cli.options import Heard
from atone.errors import AtoneError
from atone.telemetry import Observer


def observers_of(heard: Heard, stack: ExitStack) -> list[Observer]:
    """Return the observers, with a server of metrics that lives as long as the stack."""
    found: list[Observer] = []
    if heard.metrics_port is not None:
        _refuse_without("prometheus_client", "--metrics-port", "prometheus")
        from atone.integrations.prometheus import Prometheus

        prometheus = Prometheus()
        try:
            stack.enter_context(prometheus.serve(heard.metrics_port, address=heard.metrics_address))
        except AtoneError as error:
            raise Stop(Exit.USAGE, "usage", str(error)) from error
        found.append(prometheus)
    if heard.otel:
        _refuse_without("opentelemetry", "--otel", "otel")
        from atone.integrations.opentelemetry import OpenTelemetry

        found.append(OpenTelemetry())
    if heard.events:
        from atone.integrations.logs import EventLog

        found.append(EventLog())
    return found


def formatter_of(heard: Heard) -> logging.Formatter:
    """Return how the log's lines are written."""
    if not heard.log_json:
        return logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s")
    from atone.integrations.logs import JsonFormatter

    return JsonFormatter()


def _refuse_without(module: str, option: str, extra: str) -> None:
    if find_spec(module) is None:
        raise Stop(Exit.USAGE, "usage", f'{option} needs {module}. Run: pip install "atone[{extra}]"')
