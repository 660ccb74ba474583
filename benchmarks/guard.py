"""Keep a command only as long as the process that wants it: end it, and remove its folder, when that process is gone.

Run as a script: `guard.py FD FOLDER COMMAND...`, where FD is the reading end of a pipe that the wanting process holds,
and FOLDER may be empty. It owns the command's process group and no more, and must not import anything of this
repository. Started by `guarded`, which every server and every measured process of the benchmarks goes through.
"""

from __future__ import annotations

import os
import select
import shutil
import signal
import subprocess
import sys
import time

_LOOK_SECONDS = 0.1
_PATIENCE_SECONDS = 5.0


def main(pipe: int, folder: str, command: list[str]) -> int:
    """Run the command until it ends or nobody wants it any more; return its exit status."""
    for harmless in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(harmless, signal.SIG_IGN)
    process = subprocess.Popen(command, start_new_session=True, preexec_fn=_stoppable)  # noqa: PLW1509 - no threads here
    try:
        while process.poll() is None:
            readable, _, _ = select.select([pipe], [], [], _LOOK_SECONDS)
            if readable:
                break
    finally:
        _end(process)
        if folder:
            shutil.rmtree(folder, ignore_errors=True)
    return process.returncode if process.returncode >= 0 else 128 - process.returncode


def _stoppable() -> None:
    for signum in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(signum, signal.SIG_DFL)


def _end(process: subprocess.Popen[bytes]) -> None:
    """End the whole group: what the command has started is nobody else's."""
    until = time.monotonic() + _PATIENCE_SECONDS
    _signal(process.pid, signal.SIGTERM)
    while time.monotonic() < until and _signal(process.pid, 0):
        process.poll()
        time.sleep(0.02)
    _signal(process.pid, signal.SIGKILL)
    process.wait()


def _signal(group: int, signum: int) -> bool:
    try:
        os.killpg(group, signum)
    except ProcessLookupError:
        return False
    return True


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]), sys.argv[2], sys.argv[3:]))
