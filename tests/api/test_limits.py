"""Rate limits: accounts that hold under any sequence of calls, and what a flood of one tenant does to another."""

from __future__ import annotations

import msgspec
import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from daemon.api.limits import REFUSAL_SECONDS, TENANTS, Group, Limited, TenantLimits, TokenBucket
from daemon.settings import LimitSettings, Settings
from enginekit.messages.calls import ListWorkflows, ListWorkflowsResult, StartWorkflow, StartWorkflowResult

SMALL = LimitSettings(
    starts_per_second=10, starts_burst=5, reads_per_second=0, connections=2, in_flight_calls=3, long_polls=1
)


@given(st.floats(0.1, 1000), st.floats(1, 100), st.lists(st.floats(0, 2), min_size=1, max_size=200))
def test_no_more_is_let_in_than_the_rate_and_the_burst_and_waiting_as_told_helps(rate, burst, pauses):
    bucket = TokenBucket(rate, burst, 0.0)
    now = admitted = 0.0
    for pause in pauses:
        now += pause
        wait = bucket.take(now)
        if wait:
            assert 0 < wait <= 1 / rate + 1e-9
            now += wait + 1e-6
            assert bucket.take(now) == 0.0
        admitted += 1
        assert admitted <= burst + now * rate + 1e-6


def start(limits, tenant="acme", now=0.0):
    return limits.admit(tenant, Group.START, "StartWorkflow", False, now)


def test_each_tenant_has_its_own_rate_and_each_group(caplog):
    limits = TenantLimits(SMALL)
    for _ in range(5):
        limits.release(start(limits), False)
    with pytest.raises(Limited) as limited:
        start(limits)
    assert limited.value.data == {"retry_after_seconds": 0.1}
    assert "limits.starts_per_second" in limited.value.message
    limits.release(start(limits, "other"), False)
    limits.release(limits.admit("acme", Group.READ, "ListQueues", False, 0.0), False)
    limits.release(start(limits, now=0.11), False)


def test_what_is_under_way_is_bounded_and_long_polls_apart():
    limits = TenantLimits(SMALL)
    under_way = [start(limits) for _ in range(3)]
    with pytest.raises(Limited, match=r"limits.in_flight_calls"):
        limits.admit("acme", Group.READ, "ListQueues", False, 0.0)
    poll = limits.admit("acme", Group.WORK, "PollTask", True, 0.0)
    with pytest.raises(Limited, match=r"limits.long_polls"):
        limits.admit("acme", Group.WORK, "PollTask", True, 0.0)
    limits.release(poll, True)
    limits.release(under_way.pop(), False)
    limits.release(limits.admit("acme", Group.READ, "ListQueues", False, 0.0), False)
    limits.admit("acme", Group.WORK, "PollTask", True, 0.0)


def test_connections_are_bounded():
    limits = TenantLimits(SMALL)
    limits.connect("acme", 0.0)
    limits.connect("acme", 0.0)
    with pytest.raises(Limited, match=r"limits.connections"):
        limits.connect("acme", 0.0)
    limits.connect("other", 0.0)
    limits.disconnect("acme")
    limits.connect("acme", 0.0)


def test_accounts_are_bounded_too_and_those_in_use_stay():
    limits = TenantLimits(SMALL)
    limits.connect("held", 0.0)
    for number in range(TENANTS + 100):
        limits.release(start(limits, f"tenant-{number}", number / 1000), False)
    assert len(limits) <= TENANTS
    limits.disconnect("held")


def test_a_flood_of_other_tenants_does_not_give_a_tenant_its_burst_anew():
    limits = TenantLimits(SMALL)
    for _ in range(5):
        limits.release(start(limits), False)
    for number in range(TENANTS + 100):
        limits.release(start(limits, f"tenant-{number}"), False)
    with pytest.raises(Limited):
        start(limits)
    for number in range(TENANTS + 100):
        limits.release(start(limits, f"later-{number}", 60.0), False)
    assert len(limits) <= TENANTS + 100


async def test_a_flood_of_one_tenant_leaves_the_others_calls_as_they_were(serve, peers):
    """Ten times what it may: each refusal says when to come again, the other tenant is refused nothing."""
    peers.on(StartWorkflow, StartWorkflowResult(workflow_id="w", run_id="r"))
    limits = LimitSettings(starts_per_second=50, starts_burst=50)
    async with serve(msgspec.structs.replace(Settings(), limits=limits)) as served:
        refusals, admitted, done = [], 0, trio.Event()

        async def flood(client):
            nonlocal admitted
            while not done.is_set():
                asked = trio.current_time()
                answer = await client.call("StartWorkflow", workflow="order")
                if "run_id" in answer:
                    admitted += 1
                else:
                    refusals.append((answer["data"], trio.current_time() - asked))

        async with trio.open_nursery() as nursery:
            clients = [await nursery.start(_held, served.client(served.token())) for _ in range(12)]
            async with served.client(served.token(tenant="quiet")) as quiet:
                begun = trio.current_time()
                for client in clients:
                    nursery.start_soon(flood, client)
                for _ in range(100):
                    assert (await quiet.call("StartWorkflow", workflow="order"))["run_id"] == "r"
                    await trio.sleep(0.01)
            seconds = trio.current_time() - begun
            done.set()
            await trio.sleep(0.5)
            nursery.cancel_scope.cancel()
        assert refusals
        assert {each["status"] for each, _ in refusals} == {"RESOURCE_EXHAUSTED"}
        assert all(each["retry_after_seconds"] > 0 for each, _ in refusals)
        # A refusal is held back, so that a client that does not wait as told costs no more than one that does.
        assert all(held >= min(each["retry_after_seconds"], REFUSAL_SECONDS) for each, held in refusals)
        assert admitted <= 50 + 50 * (seconds + 1)


async def _held(client, task_status):
    async with client as opened:
        task_status.started(opened)
        await trio.sleep_forever()


async def test_a_connection_too_many_is_told_so_in_the_handshake(serve, peers):
    peers.on(ListWorkflows, ListWorkflowsResult(executions=[]))
    limits = LimitSettings(connections=1)
    async with serve(msgspec.structs.replace(Settings(), limits=limits)) as served:
        async with served.client() as client:
            assert (await client.call("ListWorkflows"))["executions"] == []
            with pytest.raises(BaseExceptionGroup) as refused:
                async with served.client():
                    pass
            assert "429" in repr(refused.value.exceptions[0]) or "rejected" in repr(refused.value.exceptions[0]).lower()
            async with served.client(served.token(tenant="other")) as other:
                assert (await other.call("ListWorkflows"))["executions"] == []
        with trio.fail_after(60):
            while True:
                try:
                    async with served.client() as client:
                        await client.call("ListWorkflows")
                        break
                except BaseExceptionGroup:
                    await trio.sleep(0.05)
