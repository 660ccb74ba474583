"""A throw-away RabbitMQ for tests: own folder, loopback only, free ports, a new password, gone with its parent.

Drives Debian's package `rabbitmq-server`, which must not run as root: root starts it as the package's own user. It has
a port mapper (epmd) of its own, since a node finds itself through one and would share it with others otherwise. Called
by tests, demos and benchmarks.
"""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import socket
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from pathlib import Path

from atone.testing._server import Server, ServerProcess, Stop, free_port, listens, watched_folder

_PROGRAM = Path("/usr/lib/rabbitmq/bin/rabbitmq-server")
_PATIENCE_SECONDS = 120.0
# Two shared cores: schedulers that spin while they wait take the time of whoever is tested.
_QUIET = "+S 2:2 +sbwt none +sbwtdcpu none +sbwtdio none -kernel inet_dist_use_interface {127,0,0,1}"


class NoRabbitMQ(Exception):
    """There is no RabbitMQ here, or it does not start."""


def find_rabbitmq() -> Path | None:
    """Return the program that starts a server, of Debian's package or on the path."""
    if _PROGRAM.is_file():
        return _PROGRAM
    on_path = shutil.which("rabbitmq-server")
    return Path(on_path) if on_path else None


@contextmanager
def rabbitmq_server(*, settings: Mapping[str, str] | None = None) -> Generator[RabbitServer, None, None]:
    """Start a new, empty server, and remove it with all that is in it.

    `settings` go beside those that are needed, by their names in rabbitmq.conf.

    Raises:
        NoRabbitMQ: There is no program, or it does not start; the message has its own words.
    """
    program, mapper = find_rabbitmq(), shutil.which("epmd")
    if program is None or mapper is None:
        raise NoRabbitMQ("No RabbitMQ was found here. On Debian: apt-get install rabbitmq-server")
    with watched_folder("atone-rabbit-") as folder:
        server = RabbitServer(program, Path(mapper), folder, settings or {})
        server.start()
        yield server
        server.stop("kill")


class RabbitServer(Server):
    """One node with one user, `atone`, who may do anything."""

    stops_within_seconds = _PATIENCE_SECONDS

    def __init__(self, program: Path, mapper: Path, folder: Path, settings: Mapping[str, str]) -> None:
        super().__init__(folder)
        self.password = secrets.token_hex(16)
        self._program = program
        self._mapper = mapper
        self._settings = settings
        self._user = _package_user()
        self._node = f"atone-{secrets.token_hex(4)}@localhost"
        self._mapper_port = free_port()
        self._mapping: ServerProcess | None = None

    def url(self, password: str | None = None) -> str:
        """Return where a client finds it."""
        return f"amqp://atone:{self.password if password is None else password}@127.0.0.1:{self.port}/"

    def start(self) -> None:
        """Start it, on the same port and with the data of before, and wait until it takes connections."""
        self._prepare()
        self._mapping = ServerProcess(
            self._folder, [self._mapper, "-address", "127.0.0.1", "-port", str(self._mapper_port)],
            environment=self._environment(), as_user=self._user,
        )  # fmt: skip
        if not self._mapping.wait_until(lambda: listens(self._mapper_port), within_seconds=10):
            raise NoRabbitMQ(f"The port mapper did not start: {self.log[-2000:]}")
        self._process = ServerProcess(
            self._folder, [self._program], environment=self._environment(), as_user=self._user
        )
        if not self._process.wait_until(self._answers, within_seconds=_PATIENCE_SECONDS):
            raise NoRabbitMQ(f"RabbitMQ did not start: {self.log[-2000:]}")

    def stop(self, how: Stop = "fast") -> None:
        """Stop it and its port mapper: `kill` is a crash."""
        super().stop(how)
        if self._mapping is not None:
            self._mapping.end(signal.SIGKILL)
            self._mapping = None

    def _prepare(self) -> None:
        for name in ("data", "logs"):
            (self._folder / name).mkdir(exist_ok=True)
        settings = {
            "listeners.tcp.default": f"127.0.0.1:{self.port}",
            "default_user": "atone",
            "default_pass": self.password,
            "default_user_tags.administrator": "true",
            "log.file": "false",
            "log.console": "true",
            "log.console.level": "info",
            **self._settings,
        }
        lines = "".join(f"{name} = {value}\n" for name, value in settings.items())
        (self._folder / "rabbitmq.conf").write_text(lines, encoding="utf-8")
        (self._folder / "plugins").write_text("[].\n", encoding="utf-8")
        if self._user is not None:
            for place in (self._folder, *self._folder.iterdir()):
                os.chown(place, *self._user)

    def _environment(self) -> dict[str, str]:
        folder = str(self._folder)
        return {
            "PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
            "HOME": folder,
            "LANG": "C.UTF-8",
            "ERL_EPMD_ADDRESS": "127.0.0.1",
            "ERL_EPMD_PORT": str(self._mapper_port),
            "RABBITMQ_NODENAME": self._node,
            "RABBITMQ_NODE_PORT": str(self.port),
            "RABBITMQ_NODE_IP_ADDRESS": "127.0.0.1",
            "RABBITMQ_DIST_PORT": str(free_port()),
            "RABBITMQ_MNESIA_BASE": f"{folder}/data",
            "RABBITMQ_LOG_BASE": f"{folder}/logs",
            "RABBITMQ_LOGS": "-",
            "RABBITMQ_PID_FILE": f"{folder}/pid",
            "RABBITMQ_CONFIG_FILE": f"{folder}/rabbitmq.conf",
            "RABBITMQ_ADVANCED_CONFIG_FILE": f"{folder}/advanced.config",
            "RABBITMQ_CONF_ENV_FILE": f"{folder}/rabbitmq-env.conf",
            "RABBITMQ_ENABLED_PLUGINS_FILE": f"{folder}/plugins",
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": _QUIET,
        }

    def _answers(self) -> bool:
        """Ask it for its half of a handshake."""
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=2) as line:
                line.sendall(b"AMQP\x00\x00\x09\x01")
                return line.recv(1) == b"\x01"
        except OSError:
            return False


def _package_user() -> tuple[int, int] | None:
    """Return the user that the package has made, if this process may become it."""
    if not hasattr(os, "geteuid") or os.geteuid() != 0:
        return None
    import pwd

    try:
        found = pwd.getpwnam("rabbitmq")
    except KeyError:
        return None
    return found.pw_uid, found.pw_gid
