"""The seed's own choreography is refused, with five findings; each of its static flaws has a test of its name."""

from __future__ import annotations

import pytest

from atone.choreography import Choreography
from atone.errors import DefinitionError
from tests.choreography import seed_sample
from tests.choreography.seed_sample import sample

FIVE = [
    ("nobody_listens", "payment.succeeded"),
    ("nobody_emits", "shipment.created"),
    ("no_undo", "orders.handle_order_created"),
    ("no_undo", "orders.handle_inventory_reserved"),
    ("never_completes", "payment.succeeded"),
]


def test_the_seed_s_sample_fails_with_five_findings() -> None:
    """Nobody hears that the payment succeeded (C5), nobody asks for a shipment (C5), a failed payment leaves the order
    as it was created and the charge as it was asked for, and the happy path ends nowhere (C5).
    """
    assert [(one.code, one.where) for one in sample.findings()] == FIVE


def test_the_seed_s_sample_can_t_be_built_unless_unchecked() -> None:
    """The error lists all five, and each names the line to add."""
    with pytest.raises(DefinitionError) as refused:
        Choreography(
            "orders",
            *sample.participants.values(),
            starts=(seed_sample.OrderCreated,),
            completes=(seed_sample.ShipmentCreated,),
            compensates=(seed_sample.InventoryReleased,),
        )

    lines = str(refused.value).splitlines()
    assert [line.split(":")[0].strip(" -") for line in lines[1:-1]] == [code for code, _ in FIVE]
    assert "@reacts(PaymentSucceeded)" in lines[1]
    assert "emits=(ShipmentCreated,)" in lines[2]
    assert "@handle_order_created.undo(PaymentFailed)" in lines[3]


def test_c5_the_happy_path_stalls_after_the_payment() -> None:
    """The finding tells the way, up to where nothing follows."""
    (stall,) = [one for one in sample.findings() if one.code == "never_completes"]

    assert stall.where == "payment.succeeded"
    assert stall.message.endswith("payments.charge: payment.succeeded.")
