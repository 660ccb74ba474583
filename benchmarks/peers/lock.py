"""The peers' pinned lists, made anew: each by a Python that the peer takes, since pip resolves for the one it runs on.

Owns nothing but the order of the commands; the flags are those of the other locks. Must not install a peer. Called by
`make lock`.
"""

from __future__ import annotations

import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

from benchmarks.peers.catalogue import PEERS, Peer
from benchmarks.peers.environments import LOCKS, PLACE, find_python
from benchmarks.runs import ROOT


def main(flags: list[str]) -> None:
    """Write the lock of each environment."""
    for peer in {peer.environment: peer for peer in PEERS}.values():
        lock = (LOCKS / f"{peer.environment}.txt").relative_to(ROOT)
        names = lock.with_suffix(".in")
        command: list[str | Path] = [_python_with_pip_tools(peer), "-m", "piptools", "compile", *flags]
        subprocess.run([*command, "--output-file", lock, names], check=True, cwd=ROOT)


def _python_with_pip_tools(peer: Peer) -> Path:
    base = find_python(peer.python)
    if base == Path(sys.executable).resolve():
        return Path(sys.executable)
    place = PLACE / f"locking-{base.name}"
    python = place / "bin" / "python"
    if not python.exists():
        subprocess.run([base, "-m", "venv", place], check=True)
    wanted = f"pip-tools=={version('pip-tools')}"
    subprocess.run([python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", wanted], check=True)
    return python


if __name__ == "__main__":
    main(sys.argv[1:])
