"""A plan as a Mermaid flowchart: the way forward solid, the compensations beside it as a dashed way back.

Owns the picture only. Drawn from data alone, so a stored plan of an older version can be drawn as well; the names of
compensations are no part of a plan and are given beside it. Called by `Saga.mermaid`.
"""

from __future__ import annotations

from collections.abc import Mapping

from atone._core.plan import Does, Plan, Role, StepPlan

_STYLES = (
    "classDef pivot stroke-width:4px",
    "classDef retriable stroke-width:2px",
    "classDef wait stroke-dasharray:2 2",
    "classDef compensation stroke-dasharray:6 4",
)


def draw(plan: Plan, compensations: Mapping[str, str]) -> str:
    """Return Mermaid text; `compensations` names each step's compensation. Ends without a line break."""
    lines = ["flowchart TD", '    begin(("start"))', *(f"    {_node(at, step)}" for at, step in enumerate(plan.steps))]
    lines.append('    finish(("completed"))')
    lines += [f"    {one} --> {other}" for one, other in _forward(plan)]
    undone = [at for at, step in enumerate(plan.steps) if step.has_compensation]
    if undone:
        lines += _lane(plan, undone, compensations)
    return "\n".join([*lines, *(f"    {style}" for style in _STYLES)])


def escaped(text: str) -> str:
    """Return `text` as it may stand in a quoted Mermaid label: nothing in it can end the label or mean markup."""
    return "".join(one if one.isalnum() or one in " _.,:-()" else f"#{ord(one)};" for one in text)


def _node(at: int, step: StepPlan) -> str:
    label = "<br/>".join(escaped(line) for line in (step.name, *_remarks(step)))
    if not step.acts:
        return f's{at}[/"{label}"/]:::wait'
    if step.role is Role.PIVOT:
        return f's{at}{{{{"{label}"}}}}:::pivot'
    if step.role is Role.RETRIABLE:
        return f's{at}(["{label}"]):::retriable'
    return f's{at}["{label}"]'


def _remarks(step: StepPlan) -> list[str]:
    remarks: list[str] = []
    if step.does is Does.DELAY:
        remarks.append(f"waits {step.wait_seconds:g} s")
    elif step.does is Does.EVENT:
        remarks.append(f"waits for {step.event_name}, {step.wait_seconds:g} s, then {step.on_timeout}")
    elif step.role is not Role.COMPENSATABLE:
        remarks.append(step.role.value)
    elif not step.has_compensation:
        remarks.append(f"not compensated: {step.no_compensation}")
    if step.topic is not None:
        remarks.append(f"sends {step.message_type} to {step.topic}")
    if step.at_most_once:
        remarks.append("at most once")
    if step.has_when:
        remarks.append("may be skipped")
    return remarks


def _forward(plan: Plan) -> list[tuple[str, str]]:
    """The edges, without those that a longer way says already."""
    everything = range(len(plan.steps))
    edges = [("begin", f"s{at}") for at in everything if not plan.predecessors[at]]
    edges += [(f"s{before}", f"s{at}") for before, at in _direct(plan, list(everything))]
    return edges + [(f"s{at}", "finish") for at in everything if not plan.descendants[at]]


def _direct(plan: Plan, among: list[int]) -> list[tuple[int, int]]:
    """Pairs of `among` where the second comes after the first and no third of them lies between."""
    return [
        (one, other)
        for other in among
        for one in among
        if other in plan.descendants[one]
        and not any(between in plan.descendants[one] and other in plan.descendants[between] for between in among)
    ]


def _lane(plan: Plan, undone: list[int], compensations: Mapping[str, str]) -> list[str]:
    lines = ['    subgraph back["the way back"]', "        direction BT"]
    for at in undone:
        name = plan.steps[at].name
        lines.append(f'        c{at}["{escaped(compensations.get(name, "undo " + name))}"]:::compensation')
    lines.append("    end")
    lines.append('    undone(("compensated"))')
    lines += [f"    s{at} -.- c{at}" for at in undone]
    pairs = _direct(plan, undone)
    lines += [f"    c{later} -.-> c{earlier}" for earlier, later in reversed(pairs)]
    firsts = [at for at in undone if at not in {later for _, later in pairs}]
    return lines + [f"    c{at} -.-> undone" for at in firsts]
