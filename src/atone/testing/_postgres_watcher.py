"""Ends a throw-away PostgreSQL when the process that started it is gone, even if that was killed.

Run as a script with the server's folder and the number of the process to watch. It owns the end of the folder: kills
the server in it, by its number, and removes it. It must not import anything of Atone.
"""

from __future__ import annotations

import os
import select
import shutil
import signal
import sys
import time
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
    _end(folder / "running", folder / "data" / "postmaster.pid")
    shutil.rmtree(folder, ignore_errors=True)


def _end(running: Path, there: Path) -> None:
    """Kill the server if it runs; it removes the file `there` as its last deed, if it can."""
    try:
        number = int(running.read_text(encoding="utf-8"))
        os.kill(number, signal.SIGQUIT)
        for _ in range(40):
            if not there.exists():
                return
            time.sleep(0.05)
        os.kill(number, signal.SIGKILL)
    except (OSError, ValueError):
        return  # it does not run, or not any more


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
