"""How the states of one machine are linked: dangling links, states that nothing leads to, states without a way out."""

from __future__ import annotations

from daemon.language.fields import Findings


class Graph:
    """The links of one machine, gathered while its states are read."""

    def __init__(self, findings: Findings, names: list[str]) -> None:
        self._findings = findings
        self._links: dict[str, list[str]] = {name: [] for name in names}
        self._ends: set[str] = set()
        self._complete = True

    def link(self, source: str | None, where: str, target: str) -> None:
        """A link written at a path; it starts at a state, or (None) it is where the machine starts."""
        if target not in self._links:
            hint = self._findings.suggest(target, self._links)
            self._findings.fault(where, f'no state named "{target}"{hint}')
            self._complete = False
        elif source is not None:
            self._links[source].append(target)

    def end(self, name: str) -> None:
        """The machine may end in this state."""
        self._ends.add(name)

    def unknown(self) -> None:
        """A state's links could not be read: what leads where cannot be told."""
        self._complete = False

    def check(self, where: str, start: str | None) -> None:
        """Note what cannot be reached (a fault), and what never comes to an end (a warning)."""
        if not self._complete or start not in self._links:
            return
        reached = _reachable(self._links, {start})
        for name in self._links:
            if name not in reached:
                self._findings.fault(_path(where, name), "nothing leads to this state")
        backwards: dict[str, list[str]] = {name: [] for name in self._links}
        for name, targets in self._links.items():
            for target in targets:
                backwards[target].append(name)
        finishing = _reachable(backwards, self._ends)
        for name in self._links:
            if name in reached and name not in finishing:
                self._findings.warn(_path(where, name), "no way leads from this state to an end")


def _path(where: str, name: str) -> str:
    return f"{where}.States.{name}" if where else f"States.{name}"


def _reachable(links: dict[str, list[str]], starts: set[str]) -> set[str]:
    reached = set(starts)
    pending = list(starts)
    while pending:
        for target in links[pending.pop()]:
            if target not in reached:
                reached.add(target)
                pending.append(target)
    return reached
