"""Ends throw-away servers when the process that started them is gone, even if that was killed.

Run as a script with the servers' folder and the number of the process to watch. It owns the end of the folder: kills
the process groups whose numbers lie in it, and removes it. It must not import anything of Atone.
"""

from __future__ import annotations

import os
import select
import shutil
import signal
import sys
from pathlib import Path

_LOOK_SECONDS = 0.5


def main(folder: Path, parent: int) -> None:
    """Wait for the end of the parent, then clean up."""
    for harmless in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(harmless, signal.SIG_IGN)
    while os.getppid() == parent:
        # The pipe ends with the parent; who was forked from the parent may keep it open, so look at the parent too.
        readable, _, _ = select.select([sys.stdin.fileno()], [], [], _LOOK_SECONDS)
        if readable:
            break
    for running in (folder / "running").glob("*"):
        _end(running)
    shutil.rmtree(folder, ignore_errors=True)


def _end(running: Path) -> None:
    try:
        os.killpg(int(running.name), signal.SIGKILL)
    except (OSError, ValueError):
        return  # it does not run, or not any more


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
