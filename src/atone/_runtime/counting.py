"""The census, taken now and then: how many sagas are unfinished, for whoever shows it as gauges.

Owns when it is taken. A store that can't count has no such gauges, and one that is away is asked again later. Must not
look at a finished saga. Kept by the worker, and only if an observer wants to hear it.
"""

from __future__ import annotations

import asyncio
import logging
import random

from atone._codec.problems import type_name
from atone._runtime.telemetry import Telemetry
from atone.store import Counting, Store

log = logging.getLogger("atone.telemetry")


async def keep_counting(store: Store, telemetry: Telemetry) -> None:
    """Take a census as often as it is wanted, until cancelled."""
    if telemetry.census_seconds is None or not isinstance(store, Counting):
        return
    while True:
        try:
            telemetry.counted(await store.census())
        except Exception as error:  # noqa: BLE001 - a gauge is not worth a worker
            log.warning("counting unfinished sagas: %s", type_name(error))
        # Jitter keeps many workers from asking at the same moment.
        await asyncio.sleep(telemetry.census_seconds * random.uniform(0.8, 1.2))
