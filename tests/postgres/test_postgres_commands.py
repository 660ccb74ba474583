"""`atone migrate` and `atone worker` on a PostgreSQL that is not as it should be: what is said, and nothing changed."""

from __future__ import annotations

import json
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import pytest

from atone.stores._postgres_schema import migrations
from tests.servers.postgres import Bench
from tests.servers.workers import TARGETS, atone, worker

NAMES = [one.name for one in migrations() if one.phase == "pre"]
TABLES = "SELECT count(*) FROM information_schema.tables WHERE table_schema = %s"
GRANTED = """
SELECT count(*) FROM information_schema.role_table_grants WHERE table_schema = %s AND grantee = 'atone_worker'
"""


class Database:
    """A schema that may not be there yet, and the URLs of who may do what."""

    def __init__(self, bench: Bench, schema: str) -> None:
        self.bench, self.schema = bench, schema
        self.owner = f"{bench.server.url()}?schema={schema}"
        self.worker = f"{bench.worker_url}?schema={schema}"

    def ask(self, query: str) -> object:
        found = self.bench.admin.execute(query, [self.schema]).fetchone()
        assert found is not None
        return found[0]


@pytest.fixture
def database(postgres_bench: Bench) -> Iterator[Database]:
    schema = f"C_{uuid4().hex[:8]}"
    yield Database(postgres_bench, schema)
    postgres_bench.admin.execute(f'DROP SCHEMA IF EXISTS "{schema}" CASCADE')


def test_migrate_says_what_it_applied_and_then_has_nothing_to_do(database: Database, tmp_path: Path) -> None:
    """Anybody may run it again, as a deployment does."""
    done = atone(tmp_path, "migrate", "--store", database.owner)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines() == [f"applied {name}" for name in NAMES]
    again = atone(tmp_path, "migrate", "--store", database.owner)
    assert (again.returncode, again.stdout.partition(":")[0]) == (0, "Nothing to apply")
    assert database.bench.server.password not in done.stdout + again.stdout
    as_json = atone(tmp_path, "migrate", "--store", database.owner, "--json")
    assert json.loads(as_json.stdout) == {"applied": []}
    assert database.ask(GRANTED), "the roles are there, so what workers may do was said too"


def test_a_worker_s_login_can_not_migrate_and_is_told_who_can(database: Database, tmp_path: Path) -> None:
    """Nothing was changed; the role that is missing is named."""
    done = atone(tmp_path, "migrate", "--store", database.worker)
    assert (done.returncode, done.stdout) == (1, "")
    assert "Grant it the role" in done.stderr
    assert "atone_owner" in done.stderr
    assert "Traceback" not in done.stderr
    assert database.ask(TABLES) == 0


def test_the_script_does_what_migrate_does(database: Database, tmp_path: Path) -> None:
    """Printed for a person to read and run; afterwards there is nothing left to apply, and a worker can work."""
    printed = atone(tmp_path, "migrate", "--store", database.owner, "--sql", "--roles")
    assert (printed.returncode, printed.stderr) == (0, "")
    assert database.ask(TABLES) == 0, "printing changes nothing"
    database.bench.script(printed.stdout)
    assert atone(tmp_path, "migrate", "--store", database.owner, "--json").stdout == '{"applied": []}\n'
    with worker(database.worker, tmp_path) as one:
        assert one.stopped() == 0


def test_the_script_is_printed_without_a_database(tmp_path: Path) -> None:
    """Whoever prepares a change need not reach the server; `--after` leaves out what is there already."""
    nowhere = "postgresql://nobody@127.0.0.1:1/none"
    whole = atone(tmp_path, "migrate", "--store", nowhere, "--sql").stdout
    rest = atone(tmp_path, "migrate", "--store", nowhere, "--sql", "--after", "1").stdout
    assert "CREATE TABLE" in whole
    assert NAMES[0] in whole
    assert NAMES[0] not in rest
    assert atone(tmp_path, "migrate", "--store", nowhere, "--after", "1").returncode == 2


def test_migrate_makes_the_roles_if_it_is_asked_to(database: Database, tmp_path: Path) -> None:
    """They are there for the whole server, so this only shows that it may be done and repeated."""
    for _ in range(2):
        assert atone(tmp_path, "migrate", "--store", database.owner, "--roles").returncode == 0
    assert database.ask(GRANTED)


def refused(done: subprocess.CompletedProcess[str], says: str, status: int = 1) -> None:
    """Check that a command ended with one line of its own words."""
    assert done.returncode == status, done.stderr
    assert says in done.stderr
    assert "Traceback" not in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_a_worker_does_not_migrate_and_says_what_does(database: Database, tmp_path: Path) -> None:
    """A fleet's login has no right to; whoever deploys runs the command first."""
    refused(atone(tmp_path, "worker", f"{TARGETS}:one", "--store", database.owner), "with: atone migrate --store URL")
    assert database.ask(TABLES) == 0
    with worker(database.owner, tmp_path, "--migrate") as one:
        assert one.stopped() == 0
    assert database.ask(TABLES) != 0


@pytest.mark.parametrize(
    "command", [("worker", f"{TARGETS}:one"), ("worker", f"{TARGETS}:one", "--migrate"), ("migrate",)]
)
def test_newer_tables_are_left_alone(database: Database, tmp_path: Path, command: tuple[str, ...]) -> None:
    """A newer Atone has changed them so that this one can't run: it says so, and which way out there is."""
    assert atone(tmp_path, "migrate", "--store", database.owner).returncode == 0
    database.bench.admin.execute(
        f"INSERT INTO \"{database.schema}\".migrations (number, name) VALUES (9999, '9999_post_new')"
    )
    refused(atone(tmp_path, *command, "--store", database.owner), "has 9999_post_new")
    refused(atone(tmp_path, *command, "--store", database.owner), "Upgrade Atone here, or name another schema.")


def test_a_newer_migration_that_older_code_can_live_with_stops_nobody(database: Database, tmp_path: Path) -> None:
    """That is what a rolling update needs: the tables first, then one worker after the other."""
    assert atone(tmp_path, "migrate", "--store", database.owner).returncode == 0
    database.bench.admin.execute(
        f"INSERT INTO \"{database.schema}\".migrations (number, name) VALUES (9999, '9999_pre_new')"
    )
    with worker(database.worker, tmp_path) as one:
        assert one.stopped() == 0


def test_a_login_without_any_right_is_told_which_role_it_needs(database: Database, tmp_path: Path) -> None:
    """It can reach the server, and nothing there."""
    assert atone(tmp_path, "migrate", "--store", database.owner).returncode == 0
    name = f"stranger_{uuid4().hex[:8]}"
    database.bench.admin.execute(f"CREATE ROLE {name} LOGIN PASSWORD 'x'")
    try:
        url = f"{database.bench.server.url(user=name, password='x')}?schema={database.schema}"
        refused(atone(tmp_path, "worker", f"{TARGETS}:one", "--store", url), "Grant it the role atone_worker")
    finally:
        database.bench.admin.execute(f"DROP ROLE {name}")


def test_a_reader_can_not_be_a_worker(database: Database, tmp_path: Path) -> None:
    """It may look at some of the tables; registering is refused, by name of the role that may."""
    assert atone(tmp_path, "migrate", "--store", database.owner).returncode == 0
    name = f"reader_{uuid4().hex[:8]}"
    database.bench.admin.execute(f"CREATE ROLE {name} LOGIN PASSWORD 'x' IN ROLE atone_reader")
    try:
        url = f"{database.bench.server.url(user=name, password='x')}?schema={database.schema}"
        refused(atone(tmp_path, "worker", f"{TARGETS}:one", "--store", url), "Grant it the role atone_worker")
    finally:
        database.bench.admin.execute(f"DROP ROLE {name}")


def _closed_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.mark.parametrize("command", [("worker", f"{TARGETS}:one"), ("migrate",)], ids=["worker", "migrate"])
def test_a_wrong_address_is_told_apart_from_a_wrong_password(
    database: Database, tmp_path: Path, command: tuple[str, ...]
) -> None:
    """Nobody there, no such database, not let in, no address at all: each with the next move, none with a secret."""
    server = database.bench.server
    down = f"postgresql://me:secret-word@127.0.0.1:{_closed_port()}/orders"
    wrong: list[tuple[str, int, str]] = [
        (down, 1, "Check the address, and that the server runs"),
        (server.url(password="secret-word"), 1, "Check the user and the password"),
        (server.url(database="nowhere"), 1, "there is no such database"),
        ("postgresql://me:secret-word@127.0.0.1:port/orders", 2, "Write postgresql://user:password@host:port/database"),
        (f"{database.owner}&notify=perhaps", 2, "Write notify=off"),
        ("postgresql//127.0.0.1", 2, "is no store URL"),
    ]
    for url, status, says in wrong:
        done = atone(tmp_path, *command, "--store", url)
        refused(done, says, status)
        assert "secret-word" not in done.stderr
