"""How workflows of your own are tested: each of these takes milliseconds, though months pass in it."""

from pathlib import Path

import pytest

from enginekit.activity import ActivityError
from enginekit.errors import WorkflowFailed

REMINDER = Path(__file__).with_name("reminder.asl.json")


@pytest.fixture
def mails(engine):
    """Fakes of the activities that the workflow calls."""
    engine.activity("invoice", lambda order: {"number": f"I-{order['id']}"})
    engine.activity("remind", lambda order: {"sent": True})


async def test_an_order_that_is_paid_in_time(engine, mails):
    run = await engine.start(REMINDER, {"id": 7})
    await engine.advance(days=3)
    await run.signal("paid", {"amount": 20})
    assert await run.result() == {"id": 7, "invoice": {"number": "I-7"}, "payment": {"amount": 20}}
    assert engine.calls_of("remind") == []


async def test_a_reminder_after_thirty_days(engine, mails):
    run = await engine.start(REMINDER, {"id": 7})
    await engine.advance(days=29, hours=23)
    assert await run.visited() == ["Send the invoice", "Await the payment"]
    await engine.advance(hours=1)
    assert len(engine.calls_of("remind")) == 1
    await run.signal("paid")
    await run.result()
    await run.assert_history("TaskTimedOut", "SignalReceived", "WorkflowSucceeded")


async def test_given_up_after_forty_four_days(engine, mails):
    run = await engine.start(REMINDER, {"id": 7})
    begun = engine.now
    with pytest.raises(WorkflowFailed, match=r"Order\.Unpaid"):
        await run.result()
    assert (engine.now - begun).days == 44


async def test_a_mail_server_that_is_down_for_a_while(engine, mails):
    tries = iter([ActivityError("Mail.Down"), ActivityError("Mail.Down"), None])

    @engine.activity("invoice")
    def invoice(order):
        if error := next(tries):
            raise error
        return {"number": "I-7"}

    run = await engine.start(REMINDER, {"id": 7})
    await engine.advance(minutes=3)
    assert len(engine.calls_of("invoice")) == 3
    (node,) = (await run.describe()).nodes
    assert (node.node, node.state) == ("Await the payment", "awaiting_signal")
