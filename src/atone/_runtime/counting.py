"""The census, taken now and then: how many sagas are unfinished and messages wait, for whoever shows it as gauges.

Owns when it is taken. A store that can't count has no such gauges, and one that is away is asked again later. Must not
look at a finished saga. Kept by the worker, and only if an observer wants to hear it.
"""

from __future__ import annotations

import asyncio
import logging

from atone._codec.problems import type_name
from atone._runtime.telemetry import Telemetry
from atone.machine import machine
from atone.store import Counting, Posting, Store

log = logging.getLogger("atone.telemetry")


async def keep_counting(store: Store, telemetry: Telemetry) -> None:
    """Take a census as often as it is wanted, until cancelled."""
    if telemetry.census_seconds is None or not isinstance(store, Counting | Posting):
        return
    while True:
        try:
            if isinstance(store, Counting):
                telemetry.counted(await store.census())
            if isinstance(store, Posting):
                telemetry.posting(await store.outstanding())
        except Exception as error:  # noqa: BLE001 - a gauge is not worth a worker
            log.warning("counting unfinished sagas and waiting messages: %s", type_name(error))
        # Jitter keeps many workers from asking at the same moment.
        await asyncio.sleep(telemetry.census_seconds * machine().uniform(0.8, 1.2))


async def warn_of_messages(store: Store) -> None:
    """Say once that messages wait in a store that this orchestrator has no broker for."""
    if not isinstance(store, Posting):
        return
    try:
        found = await store.outstanding()
    except Exception as error:  # noqa: BLE001 - a warning is not worth a worker
        log.warning("looking whether messages wait: %s", type_name(error))
        return
    if found.waiting:
        log.warning(
            "%d messages wait in the outbox, and this orchestrator has no broker; "
            "they wait until one with broker= runs on the same store",
            found.waiting,
        )
