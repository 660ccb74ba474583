"""A password in a store's URL, whatever it is made of and wherever it stands, is in no error, no log and no repr."""

from __future__ import annotations

import asyncio
import logging
import string
import traceback
from collections.abc import Callable, Iterator

import pytest

from atone.cli import main
from atone.errors import AtoneError, StoreError
from atone.stores import migrate_store, migration_script, open_store
from atone.stores._address import place_of, without_secrets
from atone.stores.postgres import PostgresStore

FIRST, LAST = "Qzx", "Vwk"
SPECIAL = string.punctuation + " \t\né\u2100"
NOBODY = "127.0.0.1:1"

SHAPES = [
    f"postgresql://app:{{}}@{NOBODY}/db",
    f"postgres://app:{{}}@{NOBODY},{NOBODY}/db?application_name=a",
    f"postgresql://{{}}@{NOBODY}/db",
    f"postgresql://app:{{}}@{NOBODY}",
    f"postgresql://app:{{}}@{NOBODY}/db?bogus",
    "postgresql://app:{}@127.0.0.1:12x/db",
    "postgresql://app:{}@[::1/db",
    f"postgresql://{NOBODY}/db?user=app&password={{}}",
    f"postgresql://{NOBODY}/db?password={{}}&sslmode=disable",
    f"postgresql://{NOBODY}/db?user=app&sslmode=disable&sslpassword={{}}",
    "postgresql:///db?host=127.0.0.1&port=1&password={}",
    "postgresql://127.0.0.1/db?port={}",
    f"postgresql://{NOBODY}/db?sslmode={{}}",
    f"postgresql://{NOBODY}/db?statement_cache_size={{}}",
    f"postgresql://{NOBODY}/db?notify={{}}",
    f"postgresql:/app:{{}}@{NOBODY}/db",
    f"postgresql//app:{{}}@{NOBODY}/db",
    f"postgresql:app:{{}}@{NOBODY}/db",
    f"app:{{}}@{NOBODY}/db",
    f"app:{{}}://{NOBODY}/db",
    "host=127.0.0.1 port=1 password={}",
    f"https://app:{{}}@{NOBODY}/db",
    f"sqlite://app:{{}}@{NOBODY}/db",
]


def passwords() -> Iterator[str]:
    """Give passwords with each special character at each end and in the middle, and pairs that move two borders."""
    for one in SPECIAL:
        yield from (f"{FIRST}{one}{LAST}", f"{one}{LAST}", f"{FIRST}{one}", f"1{one}{LAST}")
    for pair in ("@/", "/@", "?@", "@?", "#@", "[]", "][", "://", "&=", "=&", "%2", "@@", ":@", ",@"):
        yield from (f"{FIRST}{pair}{LAST}", f"1{pair}{LAST}", f"{FIRST}{pair[0]}1{pair[1:]}{LAST}")


def told(error: BaseException | None) -> str:
    """Return all that an error may say: its own text, what Python prints, and the errors behind it."""
    text = "" if error is None else "".join(traceback.format_exception(error, chain=False)[-1:])
    while error is not None:
        text += f"{error} {error!r} {error.args!r}\n"
        behind = [one for one in (error.__cause__, error.__context__) if one is not None]
        text += "".join(told(one) for one in behind[1:])
        error = behind[0] if behind else None
    return text


async def refusal(url: str) -> AtoneError:
    """Return how the store behind this URL is not opened."""
    with pytest.raises(AtoneError) as caught:
        async with open_store(url):
            pass
    return caught.value


@pytest.mark.parametrize("shape", SHAPES)
def test_no_error_of_a_store_tells_the_password(shape: str, caplog: pytest.LogCaptureFixture) -> None:
    """Nor does an error behind it; and each message says how to write such a password, or what else to do."""
    caplog.set_level(logging.DEBUG)

    async def main() -> None:
        for password in passwords():
            error = await refusal(shape.format(password))
            with pytest.raises(AtoneError) as migrating:
                await migrate_store(shape.format(password))
            text = told(error) + told(migrating.value) + caplog.text
            assert FIRST not in text, password
            assert LAST not in text, password
            assert str(error).endswith("."), password

    asyncio.run(main())


@pytest.mark.parametrize("shape", SHAPES)
def test_nothing_else_that_takes_a_url_tells_the_password(shape: str) -> None:
    """The words for messages and for the command line's log, the script, and the store's own name."""
    for password in passwords():
        url = shape.format(password)
        said = [_said_by(shows, url) for shows in (migration_script, place_of, lambda it: repr(PostgresStore(it)))]
        if not url.startswith("sqlite"):
            said.append(_said_by(without_secrets, url))
        assert FIRST not in "".join(said), password
        assert LAST not in "".join(said), password


def _said_by(shows: Callable[[str], str], url: str) -> str:
    try:
        return shows(url)
    except StoreError as error:
        return told(error)


@pytest.mark.parametrize("shape", SHAPES)
def test_the_command_line_tells_no_password(shape: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Whatever the command, as text and as JSON; each time it fails with a message of its own."""
    for special in "@/#?[&= ":
        url = shape.format(f"{FIRST}{special}{LAST}")
        for command in (["list"], ["list", "--json"], ["migrate"], ["worker", "tests.servers.deliveries:one"]):
            assert main([*command, "--store", url]) in {1, 2}, url
            printed = capsys.readouterr()
            assert FIRST not in printed.out + printed.err, url
            assert LAST not in printed.out + printed.err, url


@pytest.mark.parametrize(
    ("url", "place"),
    [
        ("postgresql://app:pa%2Fss@db.example:5432/orders?sslmode=require", "db.example:5432/orders"),
        ("postgresql://app:a:b c!$@one:1,two:2/orders", "one:1,two:2/orders"),
        ("postgres://[::1]:5432/orders", "[::1]:5432/orders"),
        ("postgresql://app@%2Fvar%2Frun/orders", "%2Fvar%2Frun/orders"),
        ("postgresql:///orders?host=/run&password=a/b:c", "the local server/orders"),
        ("postgresql:///", "the local server/"),
        ("postgresql://", "the local server"),
    ],
)
def test_what_can_be_read_in_one_way_is_told_by_its_place(url: str, place: str) -> None:
    """The hosts and the database, as they were written."""
    assert place_of(url) == place
