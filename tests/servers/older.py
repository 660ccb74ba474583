"""Brings the oldest PostgreSQL that Atone is tested on to this machine, if it can: Debian's own package, by its name.

Must not start a server, and must not fail: without the package its tests are skipped, and say so. Run as root by
`make test`, or by hand: `python -m tests.servers.older`.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

from atone.testing.postgres import find_postgres, major_version

OLDEST = 15
PACKAGE = f"postgresql-{OLDEST}"
MISSING = (
    f"PostgreSQL {OLDEST} is not here, so nothing is tested on it. On Debian 12, as root: python -m tests.servers.older"
)
# Without this the package would make a database of its own and start a server for it.
_SETTINGS = Path("/etc/postgresql-common/createcluster.conf")
_KEEPS_SETTINGS = ("-o", "Dpkg::Options::=--force-confold")


def is_here() -> bool:
    """Tell whether there are programs of that version."""
    return any(major_version(folder) == OLDEST for folder in find_postgres())


def install() -> str:
    """Install the package; return why that was not possible, or nothing."""
    if not hasattr(os, "geteuid") or os.geteuid() != 0:
        return "only root may install packages"
    if shutil.which("apt-get") is None:
        return "there is no apt-get"
    if not _SETTINGS.exists():
        _SETTINGS.parent.mkdir(parents=True, exist_ok=True)
        _SETTINGS.write_text("create_main_cluster = false\nstart_conf = manual\n", encoding="utf-8")
    command = ["apt-get", "install", "--yes", "--no-install-recommends", *_KEEPS_SETTINGS, PACKAGE]
    said = ""
    for first in (["true"], ["apt-get", "update"]):  # a fresh machine has no lists of packages
        if subprocess.run(first, env=_quietly(), capture_output=True, check=False).returncode == 0:
            done = subprocess.run(command, env=_quietly(), capture_output=True, text=True, check=False)
            if done.returncode == 0:
                return ""
            said = done.stderr.strip().rpartition("\n")[2]
    return said or "apt-get update failed"


def _quietly() -> dict[str, str]:
    return {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}


def main() -> None:
    if is_here():
        return
    print(f"PostgreSQL {OLDEST} is not here; installing {PACKAGE} for the tests ...", file=sys.stderr)
    why = install()
    if why or not is_here():
        print(f"{MISSING} ({why or 'the package has no programs'})", file=sys.stderr)


if __name__ == "__main__":
    main()
