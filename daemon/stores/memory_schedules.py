"""The memory store's schedules: what a table and its two indexes are to the SQLite store."""

from __future__ import annotations

from bisect import bisect_left, bisect_right, insort
from collections.abc import Sequence

from daemon.stores.faults import BatchRefused
from daemon.stores.rows import DueSchedule, ScheduleWrite, StoredSchedule
from enginekit.messages.links import Millis, ScheduleRef


class MemorySchedules:
    """All tenants'."""

    def __init__(self) -> None:
        self._rows: dict[ScheduleRef, StoredSchedule] = {}
        self._shards: dict[ScheduleRef, int] = {}
        self._due: list[tuple[Millis, str, str]] = []

    def check(self, write: ScheduleWrite) -> None:
        """Raises BatchRefused where it does not follow the last."""
        row = self._rows.get(write.schedule)
        if (0 if row is None else row.revision) != write.revision - 1:
            raise BatchRefused(
                f"revision {write.revision} of schedule {write.schedule.schedule_id!r} does not follow the last"
            )

    def write(self, write: ScheduleWrite) -> None:
        ref = write.schedule
        before = self._rows.pop(ref, None)
        if before is not None and before.next_at is not None:
            del self._due[bisect_left(self._due, (before.next_at, ref.tenant, ref.schedule_id))]
        if write.data is None:
            return
        self._shards[ref] = write.shard
        self._rows[ref] = StoredSchedule(
            schedule=ref,
            revision=write.revision,
            next_at=write.next_at,
            waiting=write.waiting,
            data=write.data,
        )
        if write.next_at is not None:
            insort(self._due, (write.next_at, ref.tenant, ref.schedule_id))

    def get(self, tenant: str, schedule_id: str) -> StoredSchedule | None:
        return self._rows.get(ScheduleRef(tenant, schedule_id))

    def page(self, tenant: str, limit: int, after_id: str | None, max_bytes: int) -> list[StoredSchedule]:
        ids = sorted(ref.schedule_id for ref in self._rows if ref.tenant == tenant)
        page: list[StoredSchedule] = []
        taken = 0
        for schedule_id in ids[bisect_right(ids, after_id) if after_id is not None else 0 :][:limit]:
            row = self._rows[ScheduleRef(tenant, schedule_id)]
            taken += len(row.data)
            if page and taken > max_bytes:
                break
            page.append(row)
        return page

    def due(self, before: Millis, limit: int, after: DueSchedule | None) -> list[DueSchedule]:
        start = 0
        if after is not None:
            start = bisect_right(self._due, (after.next_at, after.schedule.tenant, after.schedule.schedule_id))
        end = min(bisect_left(self._due, (before, "", "")), start + limit)
        return [DueSchedule(schedule=ScheduleRef(*name), next_at=at) for at, *name in self._due[start:end]]

    def waiting(self, limit: int, after: ScheduleRef | None, shards: Sequence[int] | None) -> list[ScheduleRef]:
        names = sorted(
            (ref.tenant, ref.schedule_id)
            for ref, row in self._rows.items()
            if row.waiting and (shards is None or self._shards[ref] in shards)
        )
        start = bisect_right(names, (after.tenant, after.schedule_id)) if after is not None else 0
        return [ScheduleRef(*name) for name in names[start : start + limit]]
