"""Stop a real process at every one of its crash points, past its lease; when another has gone on, wake it up.

Owns when the sleeper is woken: when its sagas are taken, or when they are over. Nothing that it writes then may be
accepted, and that it tries is counted. Run as `python -m tests.crash.zombies --store both`; the exit status is 1 if
anything is wrong, and also if no stale write was refused, for then nothing was shown.
"""

from __future__ import annotations

import signal
import sys
from dataclasses import dataclass
from functools import partial

from tests.crash.forks import LIFE_SECONDS_MAX, Forked
from tests.crash.kill_lives import Life, Place
from tests.crash.kills import ALL, HEIR_LEASE_SECONDS, VICTIM_LEASE_SECONDS, Death, Lane, arguments, command
from tests.shapes.choreographed import Dance
from tests.shapes.shape import Shape

TAKEN = "after claim of something"
# A process that is stopped in the middle of a transaction has the SQLite file locked for all: nobody goes on then.
PATIENCE_SECONDS = 4.0
BROKEN_SECONDS = 8.0


@dataclass
class Stop:
    """A run to stop at its `number`-th point. `unfenced`: with a store that takes whatever the sleeper writes."""

    shape: str
    number: int
    death: Death
    unfenced: bool = False

    def do(self, lane: Lane) -> None:
        """Stop it there, have another go on, and wake it."""
        shape = ALL[self.shape]
        place = lane.place(shape)
        if isinstance(shape, Shape) and shape.generations > 1 and self.death.generation != 0:
            lane.live(place, shape, 0)
        point, generation = self.death
        life = Life(place, shape, VICTIM_LEASE_SECONDS, point, generation, signal.SIGSTOP, unfenced=self.unfenced)
        with Forked(life) as sleeper:
            sleeper.until(lambda: any("at" in told for told in sleeper.told))
            if sleeper.status is None:
                self._sleeps(lane, place, shape, sleeper)
            else:
                sleeper.wait()  # it never came to its point; if that is because it fell, the run is broken
                lane.result.missed += 1
                lane.live(place, shape, -1)
        lane.ran(shape, place, f"{self.death}, stopped")

    def _sleeps(self, lane: Lane, place: Place, shape: Shape | Dance, sleeper: Forked) -> None:
        with Forked(Life(place, shape, HEIR_LEASE_SECONDS, tells_of=TAKEN)) as heir:
            is_taken = self.number % 2 == 1
            heir.comes_to(lambda: is_taken and any("came_to" in told for told in heir.told), PATIENCE_SECONDS)
            sleeper.signal(signal.SIGCONT)
            # What a stale write has spoilt may never end.
            seconds = BROKEN_SECONDS if self.unfenced else LIFE_SECONDS_MAX
            told = sleeper.wait(seconds)
            heir.wait(seconds)
        lane.result.stops += 1
        lane.result.fenced += told[-1]["fenced"]
        lane.result.points[self.death.point.what] += 1


def main() -> int:
    """Do what the command line says."""
    parser = arguments("Stop real processes at each of their crash points, past their leases.")
    parser.add_argument("--unfenced", action="store_true", help="with a broken SQLite store, to see it found")
    options = parser.parse_args()
    return command("zombies", options, partial(Stop, unfenced=options.unfenced), "fenced")


if __name__ == "__main__":
    sys.exit(main())
