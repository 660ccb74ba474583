"""The peers' own environments: made once from pinned lists, in a folder that is in nobody's way.

Owns that folder and the search for a Python that a peer takes. What can't be set up is said, never guessed at. Must not
run a peer. Called by `compare`.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from benchmarks.peers.catalogue import Peer
from benchmarks.runs import ROOT

LOCKS = ROOT / "requirements" / "peers"
# Git leaves out everything of that name.
PLACE = ROOT / ".venv-peers"
_RESTATE = "restate-server"
_PATIENCE_SECONDS = 900


class NotSetUp(Exception):
    """A peer can't be measured here; the message says why."""


def python_of(peer: Peer) -> Path:
    """Return the Python of a peer's environment, which is made first if it is not there or not up to date.

    Raises:
        NotSetUp: No Python here is one that the peer takes, or the packages can't be installed.
    """
    lock = LOCKS / f"{peer.environment}.txt"
    base = find_python(peer.python)
    place = PLACE / peer.environment
    python = place / "bin" / "python"
    mark = f"{base} {hashlib.sha256(lock.read_bytes()).hexdigest()}"
    if not _is_ready(place, mark):
        shutil.rmtree(place, ignore_errors=True)
        _install([base, "-m", "venv", place])
        _install([python, "-m", "pip", "install", "--quiet", "--require-hashes", "-r", lock])
        _ready(place).write_text(mark, encoding="utf-8")
    return python


def restate_server() -> Path:
    """Return the program of Restate's server, which comes as an npm package.

    Raises:
        NotSetUp: There is no npm, the package can't be installed, or it has no program for this machine.
    """
    lock = LOCKS / _RESTATE / "package-lock.json"
    place = PLACE / _RESTATE
    mark = hashlib.sha256(lock.read_bytes()).hexdigest()
    if not _is_ready(place, mark):
        npm = shutil.which("npm")
        if npm is None:
            raise NotSetUp("npm is not here; Restate's server comes as an npm package")
        shutil.rmtree(place, ignore_errors=True)
        place.mkdir(parents=True)
        for name in ("package.json", "package-lock.json"):
            shutil.copy(LOCKS / _RESTATE / name, place)
        _install([npm, "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel", "error"], cwd=place)
        _ready(place).write_text(mark, encoding="utf-8")
    found = sorted(place.glob("node_modules/@restatedev/restate-server-*/bin/restate-server"))
    if not found:
        raise NotSetUp("the npm package of Restate's server has no program for this machine")
    return found[0]


def find_python(least: tuple[int, int]) -> Path:
    """Return the Python that runs this, if it is new enough, so that all contenders share one; else the newest here.

    Raises:
        NotSetUp: None is new enough.
    """
    if sys.version_info >= least:
        return Path(sys.executable).resolve()
    fitting = [(found, place) for place in _pythons() if (found := _version_of(place)) and found[:2] >= least]
    if not fitting:
        raise NotSetUp(f"no Python {least[0]}.{least[1]} or newer was found here")
    return max(fitting)[1]


def _pythons() -> Iterator[Path]:
    folders = [Path(one) for one in os.environ.get("PATH", "").split(os.pathsep) if one]
    managed = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
    folders += [*managed.glob("*/bin"), Path("/usr/local/bin"), *Path("/opt").glob("python*/bin")]
    for folder in dict.fromkeys(folders):
        if folder.is_dir():
            yield from (one for one in folder.iterdir() if re.fullmatch(r"python3\.\d+", one.name))


def _version_of(python: Path) -> tuple[int, ...] | None:
    """Return its version, if it runs and can make environments."""
    words = "import sys, ensurepip, venv; print(*sys.version_info[:3])"
    try:
        done = subprocess.run([python, "-I", "-c", words], capture_output=True, text=True, check=True, timeout=20)
    except (OSError, subprocess.SubprocessError):
        return None
    return tuple(int(part) for part in done.stdout.split())


def _ready(place: Path) -> Path:
    return place / ".ready"


def _is_ready(place: Path, mark: str) -> bool:
    return _ready(place).is_file() and _ready(place).read_text(encoding="utf-8") == mark


def _install(command: list[str | Path], cwd: Path | None = None) -> None:
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, check=False, cwd=cwd, timeout=_PATIENCE_SECONDS,
            stdin=subprocess.DEVNULL,
        )  # fmt: skip
    except (OSError, subprocess.SubprocessError) as error:
        raise NotSetUp(f"{Path(command[0]).name} did not run: {error}") from error
    if done.returncode:
        raise NotSetUp(f"{Path(command[0]).name} failed: {(done.stderr or done.stdout).strip()[-400:]}")
