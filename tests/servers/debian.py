"""Installs a package of Debian's by its name, for tests on a server that no wheel brings; starts nothing.

Must not fail: it says why it could not. Called by the modules beside it that `make test` runs as root.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

_KEEPS_SETTINGS = ("-o", "Dpkg::Options::=--force-confold")
# A package asks this before it starts what it has brought; 101 means no.
_POLICY = Path("/usr/sbin/policy-rc.d")


def install(package: str) -> str:
    """Install the package; return why that was not possible, or nothing."""
    if not hasattr(os, "geteuid") or os.geteuid() != 0:
        return "only root may install packages"
    if shutil.which("apt-get") is None:
        return "there is no apt-get"
    command = ["apt-get", "install", "--yes", "--no-install-recommends", *_KEEPS_SETTINGS, package]
    said = ""
    with _nothing_starts():
        for first in (["true"], ["apt-get", "update"]):  # a fresh machine has no lists of packages
            if subprocess.run(first, env=_quietly(), capture_output=True, check=False).returncode == 0:
                done = subprocess.run(command, env=_quietly(), capture_output=True, text=True, check=False)
                if done.returncode == 0:
                    return ""
                said = done.stderr.strip().rpartition("\n")[2]
    return said or "apt-get update failed"


@contextmanager
def _nothing_starts() -> Generator[None, None, None]:
    """Have no package start a server of its own; a policy that is there is left as it is."""
    if _POLICY.exists():
        yield
        return
    _POLICY.write_text("#!/bin/sh\nexit 101\n", encoding="utf-8")
    _POLICY.chmod(0o755)
    try:
        yield
    finally:
        _POLICY.unlink(missing_ok=True)


def _quietly() -> dict[str, str]:
    return {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
