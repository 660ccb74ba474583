"""stub"""

from __future__ import annotations
from collections.abc import Mapping
from atone._core.plan import Plan


def draw(plan: Plan, compensations: Mapping[str, str]) -> str:
    return "flowchart TD"
