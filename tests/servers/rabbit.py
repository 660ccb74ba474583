"""Brings RabbitMQ to this machine, if it can: Debian's own package, by its name.

Must not start a server, and must not fail: without the package its tests are skipped, and say so. Run as root by
`make test`, or by hand: `python -m tests.servers.rabbit`.
"""

from __future__ import annotations

import sys

from atone.testing.rabbitmq import find_rabbitmq
from tests.servers.debian import install

PACKAGE = "rabbitmq-server"
MISSING = "RabbitMQ is not here, so nothing is tested on it. On Debian 12, as root: python -m tests.servers.rabbit"


def main() -> None:
    if find_rabbitmq() is not None:
        return
    print(f"RabbitMQ is not here; installing {PACKAGE} for the tests ...", file=sys.stderr)
    why = install(PACKAGE)
    if why or find_rabbitmq() is None:
        print(f"{MISSING} ({why or 'the package has no programs'})", file=sys.stderr)


if __name__ == "__main__":
    main()
