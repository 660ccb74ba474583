"""What a verification covered, and what it found: a table, and each finding with its timeline and how to replay it.

Owns the words. Must not judge: it is given what is wrong. Made by `verifying`, read by users and by the pytest plugin.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

__all__ = ["Finding", "Report", "Row", "SagaBroken", "Uncovered"]

SHOWN_MAX = 5
LINES_MAX = 80


class SagaBroken(AssertionError):
    """A saga does not keep what it promises; `report` has everything."""

    def __init__(self, report: Report) -> None:
        super().__init__(str(report))
        self.report = report


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the table: a step with one fault, how many runs that were, and how they ended, by how often."""

    step: str
    fault: str
    runs: int
    ends: tuple[tuple[str, int], ...]
    found: int


@dataclass(frozen=True, slots=True)
class Uncovered:
    """What was not run, and why."""

    step: str
    what: str
    why: str

    def __str__(self) -> str:
        return f"{self.step}: {self.what}: {self.why}"


@dataclass(frozen=True, slots=True)
class Finding:
    """One run that ended wrong. `replay` is what to give as `only=`; `timeline` has a line for all that happened."""

    causes: tuple[str, ...]
    replay: str
    end: str
    timeline: tuple[str, ...]

    def __str__(self) -> str:
        lines = self.timeline
        if len(lines) > LINES_MAX:
            half = LINES_MAX // 2
            lines = (*lines[:half], f"   ... {len(lines) - LINES_MAX} lines ...", *lines[-half:])
        causes = "\n".join(f"  {cause}" for cause in self.causes)
        return f"{causes}\n  ended: {self.end}\n  replay: only={self.replay!r}\n" + "\n".join(lines)


@dataclass(frozen=True)
class Report:
    """What `verify` did. It is true if it found nothing."""

    saga: str
    helper: str
    rows: Sequence[Row]
    findings: Sequence[Finding]
    uncovered: Sequence[Uncovered]
    runs: int
    points: int = 0
    calls: Counter[str] = field(default_factory=Counter[str])

    def __bool__(self) -> bool:
        return not self.findings

    def raise_if_found(self) -> Report:
        """Return the report if nothing was found.

        Raises:
            SagaBroken: Something was; the message has the table, the findings, their timelines and what replays each.
        """
        __tracebackhide__ = True
        if self.findings:
            raise SagaBroken(self)
        return self

    @property
    def table(self) -> str:
        """What was covered, as text: steps and faults, runs and how they ended."""
        head = ("step", "fault", "runs", "ends", "found")
        lines = [head, *((row.step, row.fault, str(row.runs), _ends(row.ends), _mark(row.found)) for row in self.rows)]
        widths = [max(len(line[at]) for line in lines) for at in range(len(head))]
        return "\n".join("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
                         for line in lines)  # fmt: skip

    def __str__(self) -> str:
        return "\n".join(self._parts())

    def _parts(self) -> Iterator[str]:
        wrong = f"{len(self.findings)} runs ended wrong" if self.findings else "nothing found"
        yield f"{self.helper}({self.saga}): {self.runs} runs, {wrong}"
        yield ""
        yield self.table
        if self.uncovered:
            yield ""
            yield "not covered:"
            yield from (f"  {one}" for one in self.uncovered)
        for number, finding in enumerate(self.findings[:SHOWN_MAX], 1):
            yield ""
            yield f"finding {number} of {len(self.findings)}:"
            yield str(finding)
        if len(self.findings) > SHOWN_MAX:
            yield ""
            yield f"{len(self.findings) - SHOWN_MAX} more; see report.findings"


def _ends(ends: Sequence[tuple[str, int]]) -> str:
    return ", ".join(f"{end} {count}" for end, count in ends)


def _mark(found: int) -> str:
    return str(found) if found else "-"
