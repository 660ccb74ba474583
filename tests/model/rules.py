"""The rules around `decide` that can be broken one at a time: the store's promise, the shell's order, participants.

Owns the list alone; each is true in Atone. `promise.py`, `worker.py` and `moves.py` read them.
"""

from __future__ import annotations

from typing import NamedTuple


class Rules(NamedTuple):
    """What holds in Atone; `mutants.py` sets one to False and expects the check to notice."""

    # What the store promises.
    compare_and_swap: bool = True
    fence: bool = True
    commit_id: bool = True
    finds_my_own: bool = True
    takes_from_the_dead: bool = True
    wakes_on_request: bool = True
    refuses_after_end: bool = True
    # The order in which a worker does things.
    commit_first: bool = True
    sends_with_the_turn: bool = True
    sends_again: bool = True
    keeps_the_fact: bool = True
    reads_after_conflict: bool = True
    tells_lost: bool = True
    live_stay_live: bool = True
    nothing_begins_late: bool = True
    gives_up_what_is_over: bool = True
    # What participants and the network keep to.
    keys: bool = True
    barrier: bool = True
    grace: bool = True


ATONE = Rules()
