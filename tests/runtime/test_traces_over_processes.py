"""A saga that one process starts and another ends is one trace, although the first was killed without a word."""

from __future__ import annotations

import json
import subprocess
import sys
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from tests.servers.processes import child_process

ROOT = Path(__file__).parents[2]


def _process(folder: Path, task: str) -> AbstractContextManager[subprocess.Popen[str]]:
    command = [sys.executable, "-m", "tests.runtime.traced_child", str(folder), task]
    return child_process(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)


def _spans(folder: Path, task: str) -> dict[str, Any]:
    lines = (folder / f"spans-{task}").read_text().splitlines()
    return {span["name"]: span for span in map(json.loads, lines)}


def test_the_trace_survives_a_kill_and_a_take_over(tmp_path: Path) -> None:
    """SIGKILL in the second step; the other process goes on in the trace of the first one's request."""
    with _process(tmp_path, "start") as first:
        assert first.stdout is not None
        assert first.stdout.readline() == "standing\n"
        first.kill()
    with _process(tmp_path, "go_on") as second:
        assert second.wait(60) == 0
    before, after = _spans(tmp_path, "start"), _spans(tmp_path, "go_on")
    assert {span["context"]["trace_id"] for span in (*before.values(), *after.values())} == {
        before["request"]["context"]["trace_id"]
    }
    start, claim, again = before["saga Trip"], after["saga Trip claimed"], after["step second"]
    assert start["parent_id"] == before["request"]["context"]["span_id"]
    assert claim["parent_id"] == again["parent_id"] == start["context"]["span_id"]
    assert [link["context"]["span_id"] for link in claim["links"]] == [start["context"]["span_id"]]
    assert [link["context"]["span_id"] for link in again["links"]] == [claim["context"]["span_id"]]
    assert again["attributes"]["atone.attempt"] == 2
    assert "step second" not in before
    assert "saga Trip completed" in after


def test_an_instrumented_client_and_a_plain_one_send_the_attempts_span(tmp_path: Path) -> None:
    """What OpenTelemetry's own propagator would send is what stands in `ctx.trace_headers`, in each process."""
    with _process(tmp_path, "start") as first:
        assert first.stdout is not None
        first.stdout.readline()
        first.kill()
    with _process(tmp_path, "go_on") as second:
        assert second.wait(60) == 0
    sent = [json.loads(line) for line in (tmp_path / "sent").read_text().splitlines()]
    assert len(sent) == 3
    assert all(one["instrumented"] == one["by_hand"] for one in sent)
    span = _spans(tmp_path, "go_on")["step second"]["context"]
    assert sent[-1]["by_hand"] == {"traceparent": f"00-{span['trace_id'][2:]}-{span['span_id'][2:]}-01"}
