"""Dead letters in the memory store."""

from __future__ import annotations

from daemon.stores.rows import LetterFilter, LetterRow, RunWrite, StoredLetter
from enginekit.messages.links import RunRef


class MemoryLetters:
    """By run and number, in the order they were written."""

    def __init__(self) -> None:
        self._letters: dict[tuple[str, int], StoredLetter] = {}

    def write(self, write: RunWrite) -> None:
        for number in write.letters_removed:
            self._letters.pop((write.run.run_id, number), None)
        for row in write.letters_added:
            self._letters[write.run.run_id, row.event_id] = StoredLetter(run=write.run, letter=row)

    def list(self, wanted: LetterFilter) -> list[StoredLetter]:
        found = [each for each in self._letters.values() if _matches(each.run, each.letter, wanted)]
        found.sort(
            key=lambda each: (each.letter.at, each.run.run_id, each.letter.event_id), reverse=wanted.tenant is not None
        )
        return found[: wanted.limit]

    def runs(self) -> set[str]:
        """The run_ids of those that have one."""
        return {run_id for run_id, _ in self._letters}

    def get(self, tenant: str, run_id: str, event_id: int) -> StoredLetter | None:
        found = self._letters.get((run_id, event_id))
        return found if found is not None and found.run.tenant == tenant else None


def _matches(run: RunRef, letter: LetterRow, wanted: LetterFilter) -> bool:
    return (
        (wanted.tenant is None or run.tenant == wanted.tenant)
        and (wanted.workflow_id is None or run.workflow_id == wanted.workflow_id)
        and (wanted.workflow is None or letter.workflow == wanted.workflow)
        and (wanted.node is None or letter.node == wanted.node)
        and (wanted.error is None or letter.error == wanted.error)
        and (wanted.before is None or letter.at < wanted.before)
        and (wanted.after is None or letter.at > wanted.after)
        and (wanted.behind is None or (letter.at, run.run_id) < wanted.behind)
    )
