"""The driver's reads, over a real server: what comes first, what is taken over from whom, what is forgotten."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing

import pytest
import redis
from redis_server import RedisServer, a_name

from daemon.links.redis import reading as reading_module
from daemon.links.redis.frames import Deliver, Inbox, Parcel, Receive, Settled
from daemon.links.redis.reading import Reading
from daemon.links.redis.sending import deliver
from daemon.redis.connection import Connection
from daemon.redis.frames import Server


class Bench:
    """Consumers of one stream."""

    def __init__(self, server: RedisServer, client: redis.Redis) -> None:
        self.client = client
        self.key = f"engine:{{{a_name()}}}:history:0"
        self.regrouped = 0
        self._server = server
        self._connections: list[Connection] = []

    def connection(self) -> Connection:
        connection = Connection(Server("links", self._server.url), 4.0)
        self._connections.append(connection)
        return connection

    def consumer(self, name: str) -> Reading:
        return Reading(self.connection(), name, self._regroup)

    def _regroup(self) -> None:
        self.regrouped += 1

    def add(self, *texts: bytes) -> list[str]:
        return [self.client.xadd(self.key, {"m": text}).decode() for text in texts]

    def read(self, consumer: Reading, *, fresh: bool = False, shared: bool = False, count: int = 100) -> list[bytes]:
        received = consumer.receive(Receive([Inbox(self.key, shared, fresh, 0)], count))
        assert abs(received.now_ms - self.client.time()[0] * 1000) < 60_000
        return [entry.envelope for arrivals in received.arrivals for entry in arrivals.entries]

    def close(self) -> None:
        for connection in self._connections:
            connection.close()


@pytest.fixture
def bench(redis_server: RedisServer) -> Iterator[Bench]:
    with closing(redis_server.client()) as client, closing(Bench(redis_server, client)) as made:
        yield made


def test_what_was_sent_before_there_was_an_owner_comes_first(bench: Bench) -> None:
    bench.add(b"1", b"2")
    assert bench.read(bench.consumer("a"), fresh=True) == [b"1", b"2"]


def test_a_successor_takes_over_page_by_page_before_anything_new(bench: Bench) -> None:
    bench.add(*(b"%d" % number for number in range(25)))
    assert len(bench.read(bench.consumer("a"), fresh=True)) == 25
    bench.add(b"new")
    successor = bench.consumer("b")
    pages = [bench.read(successor, fresh=number == 0, count=10) for number in range(4)]
    assert [len(page) for page in pages] == [10, 10, 5, 1]
    assert [text for page in pages for text in page] == [*(b"%d" % number for number in range(25)), b"new"]


def test_what_another_is_given_is_found_by_a_look(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading_module, "_LOOK_SECONDS", 0.0)
    owner, former = bench.consumer("owner"), bench.consumer("former")
    assert bench.read(owner, fresh=True) == []
    bench.add(b"stolen")
    assert bench.read(former) == [b"stolen"]
    assert bench.read(owner) == [b"stolen"]
    assert bench.read(owner) == []


def test_of_a_shared_inbox_only_what_lies_is_taken_over(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    one, two = bench.consumer("one"), bench.consumer("two")
    bench.add(b"1")
    assert bench.read(one, fresh=True, shared=True) == [b"1"]
    assert bench.read(two, fresh=True, shared=True) == []
    monkeypatch.setattr(reading_module, "_SHARED_IDLE_SECONDS", 0.0)
    assert bench.read(two, fresh=True, shared=True) == [b"1"]


def test_what_has_been_dealt_with_is_gone(bench: Bench) -> None:
    ids = bench.add(b"1", b"2")
    consumer = bench.consumer("a")
    assert bench.read(consumer, fresh=True) == [b"1", b"2"]
    connection = bench.connection()
    deliver(connection, Deliver([], [Settled(bench.key, ids[:1])], [], False), "r")
    assert bench.client.xlen(bench.key) == 1
    assert bench.read(bench.consumer("b"), fresh=True) == [b"2"]


def test_groups_that_are_gone_are_made_again(bench: Bench) -> None:
    consumer = bench.consumer("a")
    assert bench.read(consumer, fresh=True) == []
    bench.client.delete(bench.key)
    assert bench.read(consumer) == []
    assert bench.regrouped == 1
    bench.add(b"1")
    assert bench.read(consumer) == [b"1"]


def test_an_entry_that_is_gone_is_no_entry(bench: Bench) -> None:
    """It was cut off the stream while it was pending."""
    ids = bench.add(b"1", b"2")
    assert len(bench.read(bench.consumer("a"), fresh=True)) == 2
    bench.client.xdel(bench.key, ids[0])
    assert bench.read(bench.consumer("b"), fresh=True) == [b"2"]


def test_consumers_that_are_long_gone_are_forgotten(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    ids = bench.add(b"1")
    assert len(bench.read(bench.consumer("dead"), fresh=True)) == 1
    bench.client.xack(bench.key, "owner", *ids)
    bench.add(b"2")
    assert len(bench.read(bench.consumer("at work"))) == 1
    monkeypatch.setattr(reading_module, "_FORGET_CONSUMER_MS", -1)
    bench.read(bench.consumer("c"), fresh=True)
    assert {told["name"] for told in bench.client.xinfo_consumers(bench.key, "owner")} == {b"at work", b"c"}


def test_lengths_and_lifetimes(bench: Bench) -> None:
    connection = bench.connection()
    parcels = [Parcel(bench.key, 10, 5000, False, [b"x"] * 3), Parcel(f"{bench.key}.other", 10, 0, True, [b"y"])]
    delivered = deliver(connection, Deliver(parcels, [], [bench.key], False), "r")
    assert delivered.lengths == [1, 3]
    assert 0 < bench.client.pttl(bench.key) <= 5000
    assert bench.client.pttl(f"{bench.key}.other") == -1


def test_a_stream_is_cut(bench: Bench) -> None:
    connection = bench.connection()
    parcel = Parcel(bench.key, 100, 0, True, [b"x"] * 1000)
    (length,) = deliver(connection, Deliver([parcel], [], [], False), "r").lengths
    assert 100 <= length < 400
