"""A module with a mistake: its choreography is checked when it is built, so it can't be imported."""

from __future__ import annotations

from atone.choreography import Choreography
from tests.choreography.seed_sample import (
    Inventory,
    InventoryReleased,
    OrderChoreography,
    OrderCreated,
    Payments,
    ShipmentCreated,
)

broken = Choreography(
    "orders",
    OrderChoreography,
    Inventory,
    Payments,
    starts=(OrderCreated,),
    completes=(ShipmentCreated,),
    compensates=(InventoryReleased,),
)
