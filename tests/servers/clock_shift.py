"""The wall clock of single processes, moved while they run: a shim before the C library, made by the C compiler here.

Owns the compiled shim and a file for each clock, whose number of seconds is added from the next look on. Monotonic time
is not moved, as no step of a machine's clock moves it. Used by the run with clock jumps, for workers and for servers.
"""

from __future__ import annotations

import mmap
import shutil
import struct
import subprocess
import sys
import time
from pathlib import Path


class NoShim(Exception):
    """The clock of a process can't be moved here."""


class Clock:
    """One clock; `environment` is for the processes that shall live by it."""

    def __init__(self, shim: Path, file: Path) -> None:
        file.write_bytes(struct.pack("q", 0))
        file.chmod(0o644)
        self.environment = {"LD_PRELOAD": str(shim), "ATONE_CLOCK_SHIFT": str(file)}
        self._file = file
        self.seconds = 0

    def set(self, seconds: int) -> None:
        """Show the machine's time plus so many seconds from now on."""
        with self._file.open("r+b") as file, mmap.mmap(file.fileno(), 8) as view:
            view[:] = struct.pack("q", seconds)
        self.seconds = seconds


def make_shim(folder: Path) -> Path:
    """Compile the shim into a folder that every user can read, and see that it moves a clock.

    Raises:
        NoShim: There is no C compiler, or the shim does nothing here.
    """
    compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if compiler is None or not sys.platform.startswith("linux"):
        raise NoShim("it takes Linux and a C compiler")
    shim = folder / "clock_shift.so"
    source = Path(__file__).with_name("clock_shift.c")
    done = subprocess.run(
        [compiler, "-shared", "-fPIC", "-O2", "-o", str(shim), str(source), "-ldl"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    if done.returncode:
        raise NoShim(done.stderr)
    clock = Clock(shim, folder / "trial")
    clock.set(-86400)
    said = subprocess.run(
        [sys.executable, "-c", "import time; print(time.time())"],
        env=clock.environment, capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    if not -86500 < float(said) - time.time() < -86300:
        raise NoShim(f"a process whose clock was moved by a day back says {said}")
    return shim
