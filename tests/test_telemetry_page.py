"""The page on telemetry says what there is: each metric with its labels, each attribute, each field; its code runs."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path

import pytest

from atone._runtime.logs import FIELDS
from atone._runtime.measures import COUNTERS, GAUGES, HISTOGRAMS, Metric
from atone.integrations import opentelemetry
from tests.test_readme import imported, python_of

PAGE = (Path(__file__).parent.parent / "docs" / "telemetry.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("metric", [*COUNTERS, *HISTOGRAMS, *GAUGES], ids=lambda metric: metric.name)
def test_each_metric_is_told_with_its_labels(metric: Metric) -> None:
    """In a row of its own."""
    assert f"| `{metric.name}` | {', '.join(metric.labels)}{' ' if metric.labels else ''}|" in PAGE


def test_no_metric_is_told_that_is_not_there() -> None:
    """Each row of the three tables is a metric."""
    metrics = PAGE[PAGE.index("## Metrics") : PAGE.index("## Logs")]
    told = re.findall(r"^\| `(atone\.[a-z_.]+)` \|", metrics, re.MULTILINE)
    assert sorted(told) == sorted(metric.name for metric in (*COUNTERS, *HISTOGRAMS, *GAUGES))


def test_each_attribute_and_each_field_is_told() -> None:
    """Whatever the bridge names in its source, and whatever a record may carry."""
    source = Path(opentelemetry.__file__).read_text(encoding="utf-8")
    attributes = set(re.findall(r'"(atone\.[a-z_.]+|error\.type)"', source))
    assert len(attributes) > 10
    assert [name for name in (*attributes, *FIELDS) if f"`{name}`" not in PAGE] == []


def test_the_page_s_code_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As printed, but for the port."""
    monkeypatch.chdir(tmp_path)
    page = imported(tmp_path, "telemetry_blocks", "\n\n".join(python_of(PAGE)))
    asyncio.run(page.main(0))
