"""Atone's SQLite file: whose it is, how it is opened, and what is said when it can't be used."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import apsw
import pytest

from atone.errors import AtoneError, StoreError, StoreSchemaError, StoreUnavailable
from atone.store import Hot
from atone.stores import _sqlite_file
from atone.testing._subject import birth_of, turn_of
from tests.contract.scene import Clock, on_writer, opened
from tests.servers.processes import child_process

# -- whose file it is


def not_a_database(path: Path) -> None:
    path.write_text("To whom it may concern: " * 100)


def with_tables(path: Path) -> None:
    connection = apsw.Connection(str(path))
    connection.execute("CREATE TABLE orders (id)")
    connection.close()


def with_an_application_id(path: Path) -> None:
    connection = apsw.Connection(str(path))
    connection.pragma("application_id", 7)
    connection.close()


def with_a_user_version(path: Path) -> None:
    connection = apsw.Connection(str(path))
    connection.pragma("user_version", 1)
    connection.close()


def of_a_newer_atone(path: Path) -> None:
    async def make() -> None:
        async with opened(path) as lab:
            await on_writer(lab, lambda connection: connection.pragma("user_version", 9999))

    asyncio.run(make())


@pytest.mark.parametrize(
    ("make", "kind", "says"),
    [
        (not_a_database, StoreError, "not an SQLite database"),
        (with_tables, StoreSchemaError, "another program's"),
        (with_an_application_id, StoreSchemaError, "another program's"),
        (with_a_user_version, StoreSchemaError, "another program's"),
        (of_a_newer_atone, StoreSchemaError, "schema 9999.*Upgrade"),
    ],
)
def test_a_file_that_is_not_mine_is_refused_unchanged(
    make: Callable[[Path], None], kind: type[AtoneError], says: str, tmp_path: Path
) -> None:
    """Nothing is written into somebody else's file, not even its journal mode."""
    path = tmp_path / "theirs.db"
    make(path)
    before = path.read_bytes()

    async def use() -> None:
        async with opened(path):
            pass

    with pytest.raises(kind, match=says):
        asyncio.run(use())
    assert path.read_bytes() == before
    assert [entry.name for entry in tmp_path.iterdir()] == ["theirs.db"]


def test_an_empty_file_becomes_a_store(tmp_path: Path) -> None:
    """A file that was only touched holds nobody's data."""
    path = tmp_path / "new.db"
    path.touch()

    async def use() -> None:
        async with opened(path) as lab:
            await lab.born(lab.worker())

    asyncio.run(use())
    assert path.stat().st_size > 0


def test_commits_are_made_to_last(tmp_path: Path) -> None:
    """Write-ahead log and synchronous=FULL are the default, and what benchmarks use."""

    async def look() -> tuple[object, object]:
        async with opened(tmp_path / "a.db") as lab:
            return await on_writer(lab, lambda c: (c.pragma("journal_mode"), c.pragma("synchronous")))

    assert asyncio.run(look()) == ("wal", 2)


# -- migrations


def test_migrations_are_numbered_without_a_gap() -> None:
    """Forward only: 1, 2, 3, and so on."""
    numbers = sorted(_sqlite_file._migrations())
    assert numbers == list(range(1, len(numbers) + 1))


def later_schema(monkeypatch: pytest.MonkeyPatch, text: str) -> int:
    migrations = _sqlite_file._migrations()
    number = max(migrations) + 1
    monkeypatch.setattr(_sqlite_file, "_migrations", lambda: {**migrations, number: text})
    return number


def test_a_store_of_an_older_schema_is_brought_forward(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is in it stays; a code that only knows the older schema then refuses it."""
    path = tmp_path / "a.db"

    async def use() -> bytes:
        async with opened(path) as lab:
            return await lab.born(lab.worker())

    async def read(key: bytes) -> int:
        async with opened(path) as lab:
            assert await on_writer(lab, lambda c: c.execute("SELECT count(*) FROM later").get) == 0
            return len(await lab.rows(key))

    key = asyncio.run(use())
    with monkeypatch.context() as patch:
        later_schema(patch, "CREATE TABLE later (a); CREATE INDEX later_a ON later (a);")
        assert asyncio.run(read(key)) == 1
    with pytest.raises(StoreSchemaError):
        asyncio.run(use())


def test_a_migration_that_fails_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All of it or nothing: a half-migrated store could be opened by nobody."""
    path = tmp_path / "a.db"

    async def use() -> None:
        async with opened(path) as lab:
            await lab.born(lab.worker())

    asyncio.run(use())
    with monkeypatch.context() as patch:
        later_schema(patch, "CREATE TABLE later (a); CREATE TABLE later (a);")
        with pytest.raises(StoreError, match="already exists"):
            asyncio.run(use())
    asyncio.run(use())


# -- when it can't be used


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    """The message says what to do."""

    async def use() -> None:
        async with opened(tmp_path / "missing" / "a.db"):
            pass

    with pytest.raises(StoreUnavailable, match="folder exists"):
        asyncio.run(use())


def test_a_locked_file_is_unavailable_and_then_works_again(tmp_path: Path) -> None:
    """Another process holds the write lock: nothing is written, reading goes on, and the same call lands later."""
    path = tmp_path / "a.db"

    async def use() -> None:
        async with opened(path, busy_seconds=0.05) as lab:
            worker = lab.worker()
            key = await lab.born(worker)
            turn = turn_of(key, 2)
            with holding(path) as release:
                with pytest.raises(StoreUnavailable, match="locked by another process"):
                    await lab.commit(worker, turn)
                with pytest.raises(StoreUnavailable):
                    lab.store.renew(worker, 10)
                assert len(await lab.rows(key)) == 1
                release()
            await lab.applied(worker, turn)

    asyncio.run(use())


@contextmanager
def holding(path: Path) -> Iterator[Callable[[], object]]:
    """Hold the write lock of a file in another process."""
    command = [sys.executable, "-c", HOLD, str(path)]
    with child_process(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        holder.stdout.readline()
        yield lambda: holder.communicate(b"go\n")


HOLD = """
import sys, apsw
connection = apsw.Connection(sys.argv[1])
connection.execute("BEGIN IMMEDIATE")
print("held", flush=True)
sys.stdin.readline()
connection.execute("ROLLBACK")
"""


def test_a_full_disk_is_unavailable_and_then_works_again(tmp_path: Path) -> None:
    """SQLITE_FULL: nothing of the batch is written, what was acknowledged stays, and freeing space is enough."""

    async def use() -> None:
        async with opened(tmp_path / "a.db") as lab:
            worker = lab.worker()
            key = await lab.born(worker)
            pages = await on_writer(lab, lambda c: c.pragma("page_count"))
            assert await on_writer(lab, lambda c: c.pragma("max_page_count", pages)) == pages
            batch = [birth_of(lab.key(), entries=b"x" * 50_000), turn_of(key, 2, Hot("waiting", False, None))]
            for _ in range(2):
                with pytest.raises(StoreUnavailable, match=r"no space left for .*a\.db.*Free space"):
                    await lab.commit(worker, *batch)
            assert (len(await lab.rows(key)), (await lab.summary(key)).status) == (1, "running")
            lab.store.renew(worker, 10)
            await on_writer(lab, lambda c: c.pragma("max_page_count", 10**6))
            await lab.applied(worker, *batch)
            assert await on_writer(lab, lambda c: c.pragma("integrity_check")) == "ok"

    asyncio.run(use())


def test_a_really_full_disk_is_unavailable_and_then_works_again(tmp_path: Path) -> None:
    """The same with a file system that has no space left."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", disk], capture_output=True, check=False)
    if mounted.returncode:
        pytest.skip("only root may mount a small file system; max_page_count stands in for it above")

    async def use() -> None:
        async with opened(disk / "a.db") as lab:
            worker = lab.worker()
            ballast = disk / "ballast"
            ballast.write_bytes(b"x" * 1_000_000)
            landed = []
            with pytest.raises(StoreUnavailable, match="no space left"):
                for _ in range(100):
                    turn = birth_of(lab.key(), entries=b"x" * 50_000)
                    await lab.applied(worker, turn)
                    landed.append(turn.key)
            ballast.unlink()
            await lab.applied(worker, turn)
            assert None not in await lab.store.load(landed)
            assert await on_writer(lab, lambda c: c.pragma("integrity_check")) == "ok"

    try:
        asyncio.run(use())
    finally:
        subprocess.run(["umount", disk], check=True)


def test_a_file_that_may_only_be_read_is_unavailable(tmp_path: Path) -> None:
    """A user without write permission is told so, when opening it."""
    folder = tmp_path / "shared"
    folder.mkdir()
    path = folder / "a.db"

    async def make() -> None:
        async with opened(path) as lab:
            await lab.born(lab.worker())

    asyncio.run(make())
    path.chmod(0o444)
    folder.chmod(0o555)
    done = subprocess.run(
        [sys.executable, "-c", OPEN_AS_NOBODY, str(folder)], capture_output=True, text=True, check=False
    )
    assert "StoreUnavailable" in done.stdout, done.stderr
    assert "write" in done.stdout


# Permissions do not bind root, so root becomes nobody, once everything is imported and the folder is the working one.
OPEN_AS_NOBODY = """
import asyncio, os, sys
from atone.errors import StoreUnavailable
from atone.stores.sqlite import SqliteStore
os.chdir(sys.argv[1])
if os.getuid() == 0:
    os.setuid(65534)
async def use():
    try:
        async with SqliteStore("a.db") as store:
            store.renew("w", 10, register=())
    except StoreUnavailable as error:
        print(type(error).__name__, error)
asyncio.run(use())
"""


def test_a_store_that_turns_read_only_is_unavailable_and_then_works_again(tmp_path: Path) -> None:
    """A file system that is remounted read-only, as after a disk error: reading goes on."""

    async def use() -> None:
        async with opened(tmp_path / "a.db") as lab:
            worker = lab.worker()
            key = await lab.born(worker)
            await on_writer(lab, lambda c: c.pragma("query_only", True))
            with pytest.raises(StoreUnavailable, match=r"can't be written to.*write"):
                await lab.commit(worker, turn_of(key, 2))
            assert len(await lab.rows(key)) == 1
            await on_writer(lab, lambda c: c.pragma("query_only", False))
            await lab.applied(worker, turn_of(key, 2))

    asyncio.run(use())


class FailingDisk(apsw.VFS):
    """A file system whose log can't be made durable while `broken` is set."""

    broken = False

    def __init__(self) -> None:
        super().__init__("failing", "", makedefault=True)

    def xOpen(self, name: object, flags: list[int]) -> apsw.VFSFile:  # noqa: N802 - SQLite's name
        return FailingFile("unix", name, flags)


class FailingFile(apsw.VFSFile):
    def xSync(self, flags: int) -> None:  # noqa: N802 - SQLite's name
        if FailingDisk.broken:
            raise apsw.IOError("the disk does not answer")
        super().xSync(flags)


def test_a_commit_that_the_disk_did_not_confirm_is_settled_by_sending_it_again(tmp_path: Path) -> None:
    """The log could not be flushed: the outcome is unknown, and the same turns with the same ids are written once."""

    async def use() -> None:
        async with opened(tmp_path / "a.db") as lab:
            worker = lab.worker()
            key = await lab.born(worker)
            batch = [turn_of(key, 2, Hot("waiting", True, None)), birth_of(lab.key())]
            FailingDisk.broken = True
            with pytest.raises(StoreUnavailable, match="Look after the disk"):
                await lab.commit(worker, *batch)
            FailingDisk.broken = False
            await lab.applied(worker, *batch)
            assert (len(await lab.rows(key)), len(await lab.find())) == (2, 2)
            assert await on_writer(lab, lambda c: c.pragma("integrity_check")) == "ok"

    disk = FailingDisk()
    try:
        asyncio.run(use())
    finally:
        FailingDisk.broken = False
        disk.unregister()


def test_a_damaged_file_says_so(tmp_path: Path) -> None:
    """Pages that are overwritten from outside are no reason to guess."""
    path = tmp_path / "a.db"

    async def use() -> bytes:
        async with opened(path) as lab:
            worker = lab.worker()
            for _ in range(50):
                await lab.born(worker, entries=b"x" * 2000)
            return (await lab.find())[0]

    async def read(key: bytes) -> None:
        async with opened(path) as lab:
            await lab.store.load([key])
            await lab.find()

    key = asyncio.run(use())
    with path.open("r+b") as file:
        file.seek(4096)
        file.write(os.urandom(path.stat().st_size - 4096))
    with pytest.raises(StoreError, match=r"is damaged"):
        asyncio.run(read(key))


def test_a_store_that_came_through_a_fork_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The child has no writer thread, so a call would wait for ever."""

    async def use() -> None:
        async with opened(tmp_path / "a.db") as lab:
            with monkeypatch.context() as patch:
                patch.setattr(os, "getpid", lambda: -1)
                with pytest.raises(StoreError, match="after the fork"):
                    await lab.find()
            assert await lab.find() == []

    asyncio.run(use())


def test_a_closed_store_says_so(tmp_path: Path) -> None:
    """Before it is entered, and after it is left."""

    async def use() -> None:
        async with opened(tmp_path / "a.db", clock=Clock()) as lab:
            pass
        for call in (lab.commit("w"), lab.find(), lab.claim("w")):
            with pytest.raises(StoreError, match="not open"):
                await call
        with pytest.raises(StoreError, match="not open"):
            lab.worker()

    asyncio.run(use())
