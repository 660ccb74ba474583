"""The options that commands share, declared once: where, which saga, and who changes it for what reason.

Owns their names, defaults and help. Must not act on them. Used by `commands` alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from cyclopts import Parameter


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class Where:
    """Which store, which tenant, and in what form to answer."""

    store: Annotated[str | None, Parameter(env_var="ATONE_STORE", help="Its URL, such as sqlite:///orders.db.")] = None
    tenant: Annotated[str, Parameter(help="Whose sagas.")] = "default"
    json: Annotated[bool, Parameter(negative=(), help="Answer in JSON: one document, or one object a line.")] = False


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class Which:
    """How to tell sagas with the same id apart."""

    name: Annotated[str | None, Parameter(help="The definition's name, where an id alone is ambiguous.")] = None


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class Why:
    """Who asks for a change, why, and how long to wait for the answer."""

    reason: Annotated[str | None, Parameter(help="Why; goes into the journal. Required.")] = None
    by: Annotated[str | None, Parameter(help="Who asks; goes into the journal. Default: your user name.")] = None
    wait: Annotated[float, Parameter(help="Seconds to wait for the answer of the saga's worker.")] = 5.0
