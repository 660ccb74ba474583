"""Mutants that nothing can notice, because the changed code does the same: each by its name, with the reason.

Owns the list; whoever adds to it has tried to write a test first. A mutant that is here and dies all the same is told
by the tests. Read by the command, which counts these as neither dead nor alive.
"""

from __future__ import annotations

EQUIVALENT: dict[str, str] = {}
