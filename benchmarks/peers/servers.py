"""The servers that some peers need: each new and empty for one run, on the loopback and free ports, gone with it.

Owns their command lines and the wait until they answer. Must not measure. Called by `compare`.
"""

from __future__ import annotations

import json
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import mkdtemp

from benchmarks.guarded import guarded
from benchmarks.peers.environments import NotSetUp
from benchmarks.runs import ROOT

_PATIENCE_SECONDS = 90.0


@dataclass(frozen=True)
class Served:
    """Where a server listens, by name, and the processes whose CPU time is the server's, and the peer's own code's."""

    places: dict[str, str]
    servers: list[int]
    helpers: list[int] = field(default_factory=list[int])
    versions: dict[str, str] = field(default_factory=dict[str, str])


@contextmanager
def restate(server: Path, python: Path, workers: int, environment: Mapping[str, str]) -> Generator[Served, None, None]:
    """Run Restate's server and the service beside it, in so many processes, which it knows then."""
    ingress, admin, node, service = _free_ports(4)
    folder = Path(mkdtemp(prefix="atone-restate-"))
    settings = {
        **environment,
        "RESTATE_DISABLE_TELEMETRY": "true",
        "RESTATE_LOG_FILTER": "error",
        "RESTATE_INGRESS__BIND_ADDRESS": f"127.0.0.1:{ingress}",
        "RESTATE_ADMIN__BIND_ADDRESS": f"127.0.0.1:{admin}",
        "RESTATE_BIND_ADDRESS": f"127.0.0.1:{node}",
    }
    command: list[str | Path] = [server, "--listen-mode", "tcp", "--base-dir", folder, "--no-logo"]
    command += ["--node-name", "bench", "--advertised-address", f"http://127.0.0.1:{node}"]
    with _server(command, folder, settings) as first, _hypercorn(python, workers, service, environment) as second:
        _await(lambda: _answers(f"http://127.0.0.1:{admin}/health"), first)
        _await(lambda: _listens(service), second)
        _register(f"http://127.0.0.1:{admin}/deployments", f"http://127.0.0.1:{service}")
        places = {"ingress": f"127.0.0.1:{ingress}"}
        versions = {"restate-server": _version(server)}
        yield Served(places, [first.process.pid], [second.process.pid], versions)


@contextmanager
def temporal(python: Path, environment: Mapping[str, str]) -> Generator[Served, None, None]:
    """Run Temporal's development server on a file."""
    (frontend,) = _free_ports(1)
    folder = Path(mkdtemp(prefix="atone-temporal-"))
    command: list[str | Path] = [
        python.with_name("temporal"),
        "server",
        "start-dev",
        "--headless",
        "--log-level",
        "error",
    ]
    command += ["--ip", "127.0.0.1", "--port", str(frontend), "--db-filename", folder / "temporal.db"]
    for pragma in ("journal_mode=WAL", "synchronous=FULL"):
        command += ["--sqlite-pragma", pragma]
    for limit in ("transferProcessorMaxPollRPS", "transferProcessorMaxPollHostRPS"):
        command += ["--dynamic-config-value", f"history.{limit}=1000"]
    with _server(command, folder, environment) as running:
        _await(lambda: _listens(frontend), running)
        places = {"frontend": f"127.0.0.1:{frontend}"}
        yield Served(places, [running.process.pid], versions={"temporal": _version(python.with_name("temporal"))})


@contextmanager
def _hypercorn(
    python: Path, workers: int, port: int, environment: Mapping[str, str]
) -> Generator[_Running, None, None]:
    """Serve the service as Restate's documentation says for production."""
    folder = Path(mkdtemp(prefix="atone-hypercorn-"))
    endless = 2**31 - 1
    (folder / "hypercorn.toml").write_text(
        f'bind = "127.0.0.1:{port}"\nworkers = {workers}\nh2_max_concurrent_streams = {endless}\n'
        f"keep_alive_max_requests = {endless}\nkeep_alive_timeout = {endless}\nloglevel = \"WARNING\"\n",
        encoding="utf-8",
    )  # fmt: skip
    command: list[str | Path] = [python, "-m", "hypercorn", "--config", folder / "hypercorn.toml"]
    with _server([*command, "benchmarks.peers.apps.restate_service:app"], folder, environment) as running:
        yield running


@dataclass(frozen=True)
class _Running:
    process: subprocess.Popen[str]
    log: Path


@contextmanager
def _server(command: list[str | Path], folder: Path, environment: Mapping[str, str]) -> Generator[_Running, None, None]:
    log = folder / "bench.log"
    own = {**environment, "TMPDIR": str(folder)}  # what it leaves in the folder for temporary files goes with it
    with (
        log.open("w", encoding="utf-8") as words,
        guarded(command, folder=folder, cwd=ROOT, environment=own, stdout=words, stderr=words) as process,
    ):
        yield _Running(process, log)


def _version(program: Path) -> str:
    """Return what a program says of its version, without its own name."""
    said = subprocess.run([program, "--version"], capture_output=True, text=True, check=True, timeout=60).stdout
    return said.strip().partition("\n")[0].partition(" ")[2].removeprefix("version ")


def _await(is_there: Callable[[], bool], running: _Running) -> None:
    until = time.monotonic() + _PATIENCE_SECONDS
    while not is_there():
        if running.process.poll() is not None or time.monotonic() > until:
            words = running.log.read_text(encoding="utf-8", errors="replace") if running.log.exists() else ""
            raise NotSetUp(f"a server did not come up: {words.strip()[-400:]}")
        time.sleep(0.05)


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=2) as answer:
            return bool(answer.status == 200)
    except (OSError, urllib.error.URLError):
        return False


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def _register(admin: str, service: str) -> None:
    body = json.dumps({"uri": service}).encode()
    request = urllib.request.Request(admin, body, {"content-type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            answer.read()
    except urllib.error.URLError as error:
        raise NotSetUp(f"Restate does not take the service: {error}") from error


def _free_ports(number: int) -> list[int]:
    probes = [socket.socket() for _ in range(number)]
    try:
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        return [int(probe.getsockname()[1]) for probe in probes]
    finally:
        for probe in probes:
            probe.close()
