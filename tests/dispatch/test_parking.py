"""Parking: how much of it is in memory, and what is known of the rest."""

from __future__ import annotations

from daemon.dispatch.entry import Entry, Whereabouts
from daemon.dispatch.parking import Parking
from enginekit.messages.events import TaskKind
from enginekit.messages.links import QueuedTask, QueueKey, RunRef, TaskRef

QUEUE = QueueKey("acme", TaskKind.NODE, "http")


def entry(number: int, priority: int = 0) -> Entry:
    return Entry(QueuedTask(TaskRef(RunRef("acme", "w", "r"), number), QUEUE, priority, number), None, number)


def parked(limit: int = 5, each: int = 2, **destinations: int) -> Parking:
    parking = Parking(limit, each)
    number = 0
    for name, count in destinations.items():
        for _ in range(count):
            number += 1
            parking.add(name, entry(number))
    return parking


def test_each_destination_has_room_for_its_probes_whatever_the_others_have() -> None:
    parking = parked(a=5)
    assert not parking.takes("a")
    assert parking.takes("b")
    parking.add("b", entry(6))
    parking.add("b", entry(7))
    assert not parking.takes("b")
    assert (len(parking), parking.count("a"), parking.count("b")) == (7, 5, 2)
    assert sorted(parking.destinations()) == ["a"] * 5 + ["b"] * 2


def test_they_go_in_the_order_of_their_queue() -> None:
    parking = Parking(10, 1)
    entries = [entry(3), entry(1), entry(4, priority=9), entry(2)]
    for each in entries:
        parking.add("a", each)
    parking.remove("a", entries[1])
    assert entries[1].where is Whereabouts.GONE
    assert parking.take("a", 2) == [entries[2], entries[3]]
    assert parking.release("a") == ([entries[0]], False)
    assert parking.release("a") == ([], False)
    assert len(parking) == 0


def test_what_was_left_is_known_until_a_pull_has_seen_the_whole_queue() -> None:
    parking = parked(a=1)
    assert not parking.wants("a")
    parking.leave("a")
    assert parking.wants("a")
    assert parking.any_left
    parking.begin_pull()
    parking.end_pull(complete=False)
    assert parking.wants("a"), "the end was not seen"
    parking.begin_pull()
    parking.end_pull(complete=True)
    assert not parking.any_left
    parking.leave("b")
    assert parking.waits("b")
    parking.begin_pull()
    parking.end_pull(complete=True)
    assert not parking.waits("b")
    assert parking.waits("a")


def test_destinations_with_enough_are_passed_over_and_have_more_for_all_one_knows() -> None:
    parking = parked(a=2, b=1)
    assert parking.passed_over() == ["a"]
    assert parking.release("a")[1]
    assert not parking.release("b")[1]
