"""Every process of a split engine says how it is: /healthz, /readyz and /metrics, also of those without a Frontend."""

from __future__ import annotations

import json

import httpx2
import trio

from enginekit.client import open_client
from enginekit.messages import calls
from examples.orders.stage import running
from examples.split.cluster import engine_command, open_cluster
from tests.split.test_bad_starts import log

PLAN = {"history": 1, "matching": 1, "timer": 1, "worker": 1, "frontend": 1}
SHARDS = 4
PARTITIONS = 2
LEASE_SECONDS = 2.0
LISTEN = '[health]\nlisten = "127.0.0.1:0"\n[supervisor]\nrestarts = 1\n'
ON_THE_STORE = {"history", "matching", "timer"}
WHOLE_SECONDS = 480.0
PAUSE_SECONDS = 0.1


def where(folder, role) -> str:
    name = "daemon.json" if role == "frontend" else f"daemon.{role}.json"
    return json.loads((folder / name).read_bytes())["http"]


async def up(folder, role) -> str:
    """Once it says so: an execution may have ended without the Timer."""
    while True:
        try:
            return where(folder, role)
        except FileNotFoundError:
            await trio.sleep(PAUSE_SECONDS)


async def get(url: str) -> httpx2.Response:
    async with httpx2.AsyncClient(timeout=30) as http:
        return await http.get(url)


async def ready(url: str) -> list[str]:
    """What it waits for."""
    answer = await get(f"{url}/readyz")
    waiting = answer.json()["waiting_for"]
    assert answer.status_code == (503 if waiting else 200)
    return waiting


async def says(url: str, wanted) -> list[str]:
    """Once it waits for what is wanted."""
    while not wanted(waiting := await ready(url)):  # noqa: ASYNC110
        await trio.sleep(PAUSE_SECONDS)
    return waiting


async def described(cluster) -> None:
    """One call at the Frontend tells of all of them, also of one that stands still, and of one that was killed."""
    async with open_client(cluster.local.url, cluster.local.token, timeout_seconds=WHOLE_SECONDS) as client:

        async def seen(wanted) -> calls.DescribeDaemonResult:
            while not wanted(whole := await client.call(calls.DescribeDaemon())):  # noqa: ASYNC110
                await trio.sleep(PAUSE_SECONDS)
            return whole

        def complete(whole) -> bool:
            """Everybody is there, and has what is his. A lease that lapses takes it from him for a moment."""
            by_role = {each.roles[0]: each for each in whole.processes}
            return (
                len(whole.processes) == len(by_role) == len(PLAN)
                and not any(each.waiting_for or each.silent_since for each in whole.processes)
                and len(by_role["history"].shards) == SHARDS
                and len(by_role["matching"].partitions) == PARTITIONS
            )

        def silent(whole) -> list[str]:
            return [each.process for each in whole.processes if each.silent_since]

        whole = await seen(complete)
        processes = {each.roles[0]: each for each in whole.processes}
        assert set(processes) == set(PLAN)
        for role, each in processes.items():
            assert each.roles == [role]
            assert each.http == where(cluster.folder / "data", role)
            assert {service.state for service in each.services} == {"RUNNING"}
            assert each.store.state == ("READY" if role in ON_THE_STORE else "ELSEWHERE")
            assert each.silent_since is None
        assert [each.shard for each in processes["history"].shards] == list(range(SHARDS))
        assert processes["matching"].partitions == list(range(PARTITIONS))
        assert whole.shards == processes["history"].shards
        assert whole.store.state == "READY"

        (worker,) = cluster.of("worker")
        name = processes["worker"].process
        worker.pause()
        try:
            await seen(lambda whole: silent(whole) == [name])
        finally:
            worker.resume()
        await seen(complete)
        worker.kill()
        await seen(lambda whole: len(whole.processes) == len(PLAN) + 1 and silent(whole) == [name])


async def test_each_tells_the_truth_about_itself(tmp_path, durable_postgres, own_redis):
    database = durable_postgres.url(durable_postgres.new_database())
    with trio.fail_after(WHOLE_SECONDS):
        async with open_cluster(
            tmp_path, database, own_redis.url, PLAN, shards=SHARDS, lease_seconds=LEASE_SECONDS, more=LISTEN
        ) as cluster:
            urls = {role: await up(tmp_path / "data", role) for role in PLAN}
            assert len(set(urls.values())) == len(PLAN)
            for role, url in urls.items():
                assert (await get(f"{url}/healthz")).status_code == 200
                assert await says(url, lambda waiting: not waiting) == [], role
                metrics = (await get(f"{url}/metrics")).text
                assert ("engine_commits_total 0.0" in metrics) is (role != "history")

            await described(cluster)
            with trio.move_on_after(WHOLE_SECONDS):
                while where(tmp_path / "data", "worker") == urls["worker"]:  # noqa: ASYNC110
                    await trio.sleep(PAUSE_SECONDS)  # it was killed, and listens elsewhere
            urls["worker"] = where(tmp_path / "data", "worker")

            # The links are gone: nobody can do his work.
            own_redis.kill()
            for role, url in urls.items():
                assert await says(url, lambda waiting: "links" in waiting), role
            own_redis.start()
            for url in urls.values():
                await says(url, lambda waiting: not waiting)

            # The store is gone: those who need none are ready.
            await trio.to_thread.run_sync(durable_postgres.down, "immediate")
            for role, url in urls.items():
                if role in ON_THE_STORE:
                    assert await says(url, lambda waiting: "store" in waiting), role
                else:
                    assert await says(url, lambda waiting: not waiting) == [], role
            lapsed = "its lease has lapsed, and the store has not renewed it"
            for role in ("history", "matching"):
                await says(urls[role], lambda waiting, role=role: f"{role}: {lapsed}" in waiting)
            await trio.to_thread.run_sync(durable_postgres.up)
            for url in urls.values():
                await says(url, lambda waiting: not waiting)
            await cluster.executes()

            # An address that another process has.
            taken = urls["worker"].removeprefix("http://")
            command = [*engine_command(tmp_path / "engine.toml", tmp_path / "other", "worker"), "--http-listen", taken]
            async with running("another", command, tmp_path / "another.log") as another:
                assert await another.process.wait() == 1
                said = log(another)
            assert f"--http-listen = '{taken}': cannot listen there: Address already in use" in said
            assert "Each process of a machine needs an address of its own" in said
            await cluster.stop()
    assert not list((tmp_path / "data").glob("daemon*.json")), "whoever has ended listens nowhere"
