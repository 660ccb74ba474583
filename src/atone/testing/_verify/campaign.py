"""All runs of one verification: which are made, in which order, within the bound; and what is wrong with each.

Owns the comparison of a ledger with the untouched one and with the one of a run without faults. Must not do a run.
Called by `verifying`.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from enum import Enum, auto
from random import Random

from atone._core.plan import Does
from atone.testing._verify import scenarios
from atone.testing._verify.case import Case
from atone.testing._verify.report import Finding, Report, Row, Uncovered
from atone.testing._verify.run import Result, Run
from atone.testing._verify.scenarios import NO_FAULT, Fault, Kind, Scenario, backward, named

FINAL = {"completed", "compensated"}
KILLED = "killed at each point"
_NUMBER = re.compile(r"\d+")


class Part(Enum):
    """What a helper is made of."""

    STEPS = auto()
    COMPENSATIONS = auto()
    QUESTIONS = auto()
    EVENTS = auto()
    REPEATS = auto()
    CANCELS = auto()
    CRASHES = auto()
    HOPS = auto()
    PAIRS = auto()


@dataclass
class _Line:
    runs: int = 0
    found: int = 0
    ends: Counter[str] = field(default_factory=Counter[str])


class Campaign:
    """One verification; used once."""

    def __init__(
        self, helper: str, case: Case, parts: Iterable[Part], *, runs_max: int, findings_max: int, schedules: int = 0
    ) -> None:
        self._helper, self._case, self._parts = helper, case, frozenset(parts)
        self._runs_max, self._findings_max, self._schedules = runs_max, findings_max, schedules
        self._results: dict[str, Result] = {}
        self._lines: dict[tuple[str, str], _Line] = {}
        self._findings: list[Finding] = []
        self._calls: Counter[str] = Counter()
        self._skipped: Counter[tuple[str, str]] = Counter()
        self._missed: list[Uncovered] = []
        self._runs = 0
        self._points = 0

    def report(self, only: str | None = None) -> Report:
        """Do all runs, or one, and return what came of them."""
        if only not in (None, NO_FAULT.name):
            self._ask_for(str(only))
        base = self._do(NO_FAULT, ("(saga)", "no fault"))
        if not self._findings:
            if only is None:
                self._do_all(base)
            elif only != NO_FAULT.name:
                self._do(named(only), ("(replay)", only))
        rows = [
            Row(step, fault, line.runs, tuple(line.ends.most_common()), line.found)
            for (step, fault), line in self._lines.items()
        ]
        return Report(
            self._case.plan.name, self._helper, rows, self._findings, list(self._uncovered(only)), self._runs,
            self._points, self._calls,
        )  # fmt: skip

    def _do_all(self, base: Result) -> None:
        singles = scenarios.distinct(self._singles())
        for scenario in singles:
            self._do(scenario, _row(scenario))
        back = [self._seen(one) for one in backward(self._case.plan)]
        if Part.HOPS in self._parts:
            for found in (base, *back):
                for scenario in scenarios.of_hops(self._case.plan, found.scenario, found.hops):
                    self._do(scenario, _row(scenario))
        if Part.CRASHES in self._parts:
            self._kill(base, *back)
        if Part.CANCELS in self._parts:
            for at in range(1, len(base.points) + 1):
                self._do(NO_FAULT.cancelled(at), ("(saga)", "cancelled at each point"))
        for seed in range(self._schedules):
            self._do(self._drawn(seed, singles), ("(saga)", "two faults, a kill, another order, by seeds"))
        if Part.PAIRS in self._parts:
            self._pairs()

    def _singles(self) -> Iterator[Scenario]:
        plan = self._case.plan
        if Part.STEPS in self._parts:
            yield from (one for one in scenarios.of_actions(plan) if not _repeats(one))
        if Part.REPEATS in self._parts:
            repeats = [one for one in scenarios.of_actions(plan) if _repeats(one)]
            yield from repeats
            yield from scenarios.repeated_and_undone(plan, repeats)
        if Part.COMPENSATIONS in self._parts:
            yield from scenarios.of_compensations(plan)
        if Part.QUESTIONS in self._parts:
            yield from scenarios.of_questions(plan)
        if Part.EVENTS in self._parts:
            yield from (one for one in scenarios.of_events(plan) if self._is_sent(one))

    def _is_sent(self, scenario: Scenario) -> bool:
        steps = {step.name: step.event_name for step in self._case.plan.steps}
        return all(steps[fault.step] in self._case.events for fault in scenario.about)

    def _kill(self, *found: Result) -> None:
        for result in found:
            step, fault = _row(result.scenario)
            for at in range(1, len(result.points) + 1):
                label = KILLED if result.scenario == NO_FAULT else f"{KILLED}, beside: {fault}"
                self._do(result.scenario.crashing(at), (step, label))

    def _pairs(self) -> None:
        """Kill the worker at each point of each run with a fault; of too many every n-th."""
        pairs = [
            (found.scenario, at)
            for found in list(self._results.values())
            if found.scenario.about
            and not found.scenario.crashes
            and found.scenario.cancel is None
            and found.hit.issuperset(found.scenario.about)
            for at in _first_of_kind(found.points)
        ]
        left = self._runs_max - self._runs
        every = max(1, -(-len(pairs) // max(1, left)))
        for number, (scenario, at) in enumerate(pairs):
            step, fault = _row(scenario)
            if number % every:
                self._skipped["(saga)", f"{KILLED} beside another fault"] += 1
            else:
                self._do(scenario.crashing(at), (step, f"{fault}, and {KILLED}"))

    def _drawn(self, seed: int, singles: list[Scenario]) -> Scenario:
        chance = Random(f"verify {seed}")
        faults = tuple(one for drawn in chance.sample(singles, min(2, len(singles))) for one in drawn.faults)
        points = len(self._results[NO_FAULT.name].points)
        return Scenario(tuple(dict.fromkeys(faults)), (), (chance.randint(1, max(1, 2 * points)),), None, seed)

    def _seen(self, scenario: Scenario) -> Result:
        return self._results.get(scenario.name) or self._do(scenario, _row(scenario))

    def _do(self, scenario: Scenario, row: tuple[str, str]) -> Result:
        """Make one run, unless it was made, or there were enough."""
        name = scenario.name
        if name in self._results:
            return self._results[name]
        if self._runs >= self._runs_max or len(self._findings) >= self._findings_max:
            self._skipped[row] += 1
            return Result(scenario)
        self._runs += 1
        result = self._results[name] = Run(self._case, scenario).go()
        self._points += len(result.points)
        wrong = tuple(self._wrong(result)) or tuple(self._unlike(result))
        line = self._lines.setdefault(row, _Line())
        line.runs += 1
        line.ends[result.end] += 1
        self._calls.update(f"{step}.{called}" for step, called in result.calls)
        if wrong:
            line.found += 1
            timeline = () if result.timeline is None else tuple(result.timeline.lines)
            self._findings.append(Finding(wrong, name, result.end, timeline))
        if not result.hit.issuperset(scenario.about) and not scenario.crashes and scenario.seed is None:
            self._missed.append(Uncovered(row[0], row[1], "the saga never came there"))
        result.timeline = None
        return result

    def _wrong(self, result: Result) -> Iterator[str]:
        yield from result.wrong
        base = self._results[NO_FAULT.name]
        if result is base and result.end not in FINAL:
            yield f"without any fault it ends {result.end}: give an input and participants with which it completes"
        elif result is base and result.status == "compensated" and result.failure is not None:
            yield (
                f"without any fault it is undone, for {result.failure.rstrip('.')}. Give an input and participants "
                "with which it completes, or is refused (Reject); time is virtual, so threads and sockets do not answer"
            )
        elif result.wrong:
            return
        elif result.status not in FINAL:
            yield f"it ends {result.end}: nobody can bring it to an end, even when the faults are over"
        elif result.status == "compensated" and result.balance != result.untouched:
            yield f"it is compensated, but the ledger says {result.balance!r}; before it said {result.untouched!r}"
        elif result.status == "completed" and base.status == "completed" and result.balance != base.balance:
            yield f"it is completed, but the ledger says {result.balance!r}; without faults it says {base.balance!r}"

    def _unlike(self, result: Result) -> Iterator[str]:
        """Say whether runs can't be compared: the participants are not made anew, or each run is another by itself."""
        base = self._results[NO_FAULT.name]
        if result is base:
            result = Run(self._case, NO_FAULT).go()
        if result.untouched != base.untouched:
            yield (
                f"before this run the ledger says {result.untouched!r}, before the first one it said "
                f"{base.untouched!r}: participants= has to make all that they hold anew for each run. Look for what "
                "lives in a module or a class, or in a file"
            )
        elif result.scenario == NO_FAULT and (result.status, result.balance) != (base.status, base.balance):
            yield (
                f"without any fault it ends {base.end} and the ledger says {base.balance!r}; once more, and it ends "
                f"{result.end} and says {result.balance!r}. Leave out of the ledger what is drawn anew each time "
                "(random, uuid, the time of day), or give it a seed"
            )

    def _ask_for(self, only: str) -> None:
        """Refuse a name that fits no step.

        Raises:
            ValueError: It does not.
        """
        unknown = sorted({fault.step for fault in named(only).faults} - self._case.plan.index.keys())
        if unknown:
            raise ValueError(
                f"{self._case.plan.name} has no step {unknown[0]!r}, which only={only!r} names. "
                "Copy `only=` from a report, as it stands there."
            )

    def _uncovered(self, only: str | None) -> Iterator[Uncovered]:
        if only is not None:
            return
        yield from dict.fromkeys(self._missed)
        enough = len(self._findings) >= self._findings_max
        bound = f"findings_max={self._findings_max}" if enough else f"runs_max={self._runs_max}"
        for (where, what), count in self._skipped.items():
            yield Uncovered(where, what, f"{count} runs more, beyond {bound}")
        plan = self._case.plan
        if {Part.STEPS, Part.REPEATS} & self._parts:
            yield from (Uncovered(one.step, one.what, one.why) for one in scenarios.left_out(plan))
        for step in plan.steps:
            if step.does is Does.EVENT and step.event_name not in self._case.events:
                yield Uncovered(step.name, "the event", f"give its payload: events={{{step.event_name!r}: ...}}")
            for called in ("action", "compensation", "probe"):
                has = {"action": step.acts, "compensation": step.has_compensation, "probe": step.has_probe}[called]
                wanted = called != "probe" or Part.QUESTIONS in self._parts
                if has and wanted and not self._calls[f"{step.name}.{called}"]:
                    yield Uncovered(step.name, called, "never called in any run")


def _first_of_kind(points: list[str]) -> Iterator[int]:
    """Return the numbers of the points without those that are like two before: the tenth attempt is as the third."""
    seen: Counter[str] = Counter()
    for at, point in enumerate(points, 1):
        kind = _NUMBER.sub("", point)
        seen[kind] += 1
        if seen[kind] <= 2:
            yield at


def _repeats(scenario: Scenario) -> bool:
    return all(fault.kind in (Kind.TWICE, Kind.TWICE_AT_ONCE) for fault in scenario.about)


def _row(scenario: Scenario) -> tuple[str, str]:
    """Return where a run is counted: the step, and what goes wrong with it."""
    if not scenario.about:
        return "(saga)", "no fault"
    words = ", ".join(map(_words, scenario.about))
    return scenario.about[0].step, words + "".join(f" ({_because(fault)})" for fault in scenario.because)


def _because(fault: Fault) -> str:
    return "undone" if fault.kind is Kind.REJECTED or fault.times != 1 else f"after: {fault.kind.replace('-', ' ')}"


def _words(fault: Fault) -> str:
    called = "" if fault.called == "action" else f"{fault.called} "
    where = "" if fault.hop is None else f", its call {fault.hop}"
    times = {0: ", every time", 1: ""}.get(fault.times, f", {fault.times} times")
    return f"{called}{fault.kind.replace('-', ' ')}{times}{where}"
