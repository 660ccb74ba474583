"""What installing and importing the package brings along, and what the repository may not tell.

Reads the installed metadata and the files of the checkout; imports happen in fresh processes only,
since this one has everything loaded already.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from importlib import metadata, resources
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))

OPTIONAL = {
    "asyncpg", "cyclopts", "fastapi", "httpx", "hypothesis", "jinja2", "opentelemetry", "prometheus_client", "pydantic",
    "pytest", "rich", "sqlalchemy", "starlette", "temporalio", "uvicorn",
}  # fmt: skip

PRINT_WHAT_IS_LOADED = "import sys; {statement}; print(*{{name.partition('.')[0] for name in sys.modules}})"


def _loaded_after(statement: str) -> set[str]:
    code = PRINT_WHAT_IS_LOADED.format(statement=statement)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    return set(done.stdout.split())


def test_importing_atone_loads_nothing_optional() -> None:
    """A fresh process that imports the package holds none of the optional packages."""
    loaded = _loaded_after("import atone")
    assert "atone" in loaded
    assert loaded & OPTIONAL == set()


def test_the_look_into_a_fresh_process_sees_what_is_loaded() -> None:
    """The check above can fail: an optional package that is imported is seen."""
    assert _loaded_after("import atone, httpx") & OPTIONAL >= {"httpx"}


def test_the_core_installs_at_most_two_dependencies() -> None:
    """Whatever has no extra marker is installed with the bare package."""
    declared = metadata.requires("atone") or []
    core = {re.split(r"[\s<>=!~;\[(]", line)[0] for line in declared if "extra ==" not in line}
    assert core == {"apsw", "msgspec"}


def test_the_installed_metadata_is_this_checkout() -> None:
    """The two tests above read what pyproject.toml says now, not an older install."""
    assert metadata.version("atone") == PYPROJECT["project"]["version"]
    declared = {line for line in metadata.requires("atone") or [] if "extra ==" not in line}
    assert declared == {line.replace(" ", "") for line in PYPROJECT["project"]["dependencies"]}


def test_the_core_lock_brings_nothing_else() -> None:
    """The run-time lock pins the two dependencies and nothing that they would pull in."""
    lock = (ROOT / "requirements" / "core.txt").read_text(encoding="utf-8")
    assert set(re.findall(r"^([a-z0-9-]+)==", lock, re.MULTILINE)) == {"apsw", "msgspec"}


def test_the_package_says_that_it_is_typed() -> None:
    """Type checkers look at the marker before they look at the annotations."""
    assert resources.files("atone").joinpath("py.typed").is_file()


@pytest.mark.parametrize("name", ["core.txt", "dev.in", "dev.txt"])
def test_a_lock_names_neither_a_host_nor_a_path(name: str) -> None:
    """A lock is about packages and hashes: where they came from is the installer's own business."""
    text = (ROOT / "requirements" / name).read_text(encoding="utf-8")
    assert re.findall(r"\w+://\S+|--(?:extra-)?index-url\S*|--find-links|--trusted-host|(?<![\w.])/\w+/\S*", text) == []


@pytest.mark.parametrize("name", ["core.txt", "dev.txt"])
def test_every_pin_of_a_lock_has_its_hashes(name: str) -> None:
    """Only a pin with hashes installs under --require-hashes."""
    text = (ROOT / "requirements" / name).read_text(encoding="utf-8")
    pins = re.findall(r"^[a-z0-9-]+==\S+(.*(?:\n    --hash=.*)*)", text, re.MULTILINE)
    assert pins
    assert all("--hash=sha256:" in pin for pin in pins)
