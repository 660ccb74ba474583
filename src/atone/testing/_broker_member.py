"""A member of a group in a process of its own, which ends nothing of what it is given: `URL GROUP COUNT`.

Says a line for each delivery, then waits to be killed, or for the end of its input. Must not ack. Started by the checks
of the broker contract.
"""

from __future__ import annotations

import asyncio
import sys

from atone.brokers import open_broker


async def main(url: str, group: str, count: int) -> None:
    """Take so many deliveries and hold them."""
    async with open_broker(url) as broker:
        held = 0
        async for delivery in broker.deliveries(group, in_flight=count):
            sys.stdout.write(f"{delivery.message.id}\n")
            sys.stdout.flush()
            held += 1
            if held == count:
                await asyncio.to_thread(sys.stdin.read)
                return


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2], int(sys.argv[3])))
