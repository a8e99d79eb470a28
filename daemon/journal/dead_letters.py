"""Calls about dead letters and redriving, and the end of letters that have been kept for as long as they are to be.

A letter goes when its run is redriven, when somebody discards it, or when it has outlived its retention, which is
logged; never otherwise.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from functools import partial
from typing import TYPE_CHECKING, Final

import structlog
import trio
from msgspec import Raw, UnsetType

from daemon.clock import millis
from daemon.execution.commands import Redrive
from daemon.journal.letters import letter_id, summary, whole
from daemon.logs import about
from daemon.stores.rows import LetterFilter, StoredLetter
from enginekit.messages import calls, dead_letters
from enginekit.messages.links import Millis, RunRef
from enginekit.messages.status import ErrorStatus, Refused

if TYPE_CHECKING:
    from daemon.journal.live import LiveRun
    from daemon.journal.session import Session
    from daemon.links.interface import Request

log = structlog.get_logger("history")

DAY_SECONDS: Final = 86_400.0
SWEEP_SECONDS: Final = 3600.0
"""How often letters are looked for that have been kept for long enough."""
SWEEP_LETTERS: Final = 200
"""How many at once."""


class DeadLetterCalls:
    """Answers calls within one session."""

    def __init__(self, session: Session) -> None:
        self._session = session

    async def list(self, request: Request, call: dead_letters.ListDeadLetters) -> None:
        found = await self._session.store.dead_letters(
            LetterFilter(
                tenant=request.caller.tenant,
                limit=call.page_size + 1,
                workflow_id=call.workflow_id,
                workflow=call.workflow,
                node=call.node,
                error=call.error,
                after=_millis(call.after),
                before=_millis(call.before),
                behind=_place(call.page_token),
            )
        )
        page = found[: call.page_size]
        last = page[-1] if len(found) > len(page) else None
        request.answer(
            dead_letters.ListDeadLettersResult(
                dead_letters=[summary(each.letter) for each in page],
                next_page_token=None if last is None else f"{last.letter.at}.{last.run.run_id}",
            )
        )

    async def get(self, request: Request, call: dead_letters.GetDeadLetter) -> None:
        request.answer(whole((await self._letter(request, call.id)).letter))

    async def discard(self, request: Request, call: dead_letters.DiscardDeadLetter) -> None:
        session = self._session
        letter = await self._letter(request, call.id)

        def act(live: LiveRun) -> None:
            session.discard_letter(live, letter.letter.event_id)
            session.answer(request, calls.Acknowledged(), live)

        session.when_live(letter.run, act, session.refuser(request))

    async def redrive_letter(self, request: Request, call: dead_letters.RedriveDeadLetter) -> None:
        run_id, _, number = call.id.partition("/")
        session, tenant = self._session, request.caller.tenant
        execution = await session.store.execution(tenant, run_id)
        if execution is None:
            raise _no_letter(call.id)
        kept = await session.store.dead_letter(tenant, run_id, int(number))
        command = Redrive(reason=call.reason, request_id=call.request_id, input=_given(call.input))

        def check(live: LiveRun) -> None:
            repeated = call.request_id is not None and call.request_id == live.run.redrive_request_id
            if not repeated and live.run.letter != int(number):
                raise Refused(
                    ErrorStatus.FAILED_PRECONDITION,
                    f"dead letter {call.id} is not what its execution stands at: run {run_id} is "
                    f"{live.run.status.value}, and was redriven meanwhile",
                )
            if not repeated and kept is None:
                raise Refused(
                    ErrorStatus.NOT_FOUND,
                    f'dead letter {call.id} was discarded; redrive "{live.run.ref.workflow_id}" by its id',
                )

        await self._redrive(request, execution.run, command, check)

    async def redrive(self, request: Request, call: calls.RedriveWorkflow) -> None:
        session, tenant = self._session, request.caller.tenant
        run_id = call.run_id
        if run_id is None:
            latest = await session.store.latest_run(tenant, call.workflow_id)
            if latest is None:
                raise Refused(ErrorStatus.NOT_FOUND, f'no execution "{call.workflow_id}"')
            run_id = latest.run_id
        command = Redrive(reason=call.reason, request_id=call.request_id, input=_given(call.input))
        await self._redrive(request, RunRef(tenant, call.workflow_id, run_id), command, lambda live: None)

    async def _redrive(self, request: Request, ref: RunRef, command: Redrive, check: Callable[[LiveRun], None]) -> None:
        """One start or redrive of a workflow_id at a time, from the look into the store to the commit."""
        session = self._session
        name = (ref.tenant, f"workflow {ref.workflow_id}")
        while name in session.held:
            await session.held[name].wait()
        session.held[name] = trio.Event()
        held = True
        try:
            live = await session.live(ref)
            live.waiters += 1
            try:
                if live.batch is not None:
                    # Its closing has to be on disk before it can be opened again.
                    await live.batch.committed.wait()
                latest = await session.store.latest_run(ref.tenant, ref.workflow_id)
                if latest is not None and latest.run_id != ref.run_id:
                    raise Refused(
                        ErrorStatus.FAILED_PRECONDITION,
                        f'run {ref.run_id} of "{ref.workflow_id}" cannot be redriven: a newer run holds that id '
                        f"(run {latest.run_id}, {latest.status.value}); start another execution, or redrive that one",
                        {"run_id": latest.run_id},
                    )
                check(live)
                decision = session.act(live, command, request.caller.subject)
                if decision.events:
                    session.committer.gathering.held.append(name)
                    held = False
                answer = calls.RedriveResult(workflow_id=ref.workflow_id, run_id=ref.run_id)
                session.answer(request, answer, live)
            finally:
                live.waiters -= 1
        finally:
            if held:
                session.held.pop(name).set()

    async def _letter(self, request: Request, name: str) -> StoredLetter:
        run_id, _, number = name.partition("/")
        found = await self._session.store.dead_letter(request.caller.tenant, run_id, int(number))
        if found is None:
            raise _no_letter(name)
        return found


async def sweep(session: Session, retention_days: float) -> None:
    """Discard letters that have been kept for as long as they are to be, until cancelled."""
    while True:
        await _sweep_once(session, retention_days)
        await trio.sleep(SWEEP_SECONDS)


async def _sweep_once(session: Session, retention_days: float) -> None:
    """Each of them is looked at once: those of other shards' owners are theirs to discard, and one whose execution
    cannot be loaded stays."""
    before = session.clock.now() - round(retention_days * DAY_SECONDS * 1000)
    behind: tuple[Millis, str] | None = None
    while True:
        wanted = LetterFilter(tenant=None, limit=SWEEP_LETTERS, before=before, behind=behind)
        expired = await session.store.dead_letters(wanted)
        for each in expired:
            if not session.across.owns(each.run):
                continue

            def act(live: LiveRun, event_id: int = each.letter.event_id) -> None:
                session.discard_letter(live, event_id)

            session.when_live(each.run, act, partial(_log_lost, each.run))
            log.warning(
                "a dead letter has outlived its retention and is discarded",
                letter=letter_id(each.run.run_id, each.letter.event_id),
                **about(each.run),
                node=each.letter.node,
                error=each.letter.error,
                retention_days=retention_days,
            )
        if len(expired) < SWEEP_LETTERS:
            return
        behind = (expired[-1].letter.at, expired[-1].run.run_id)
        await session.committer.flushed()


def _no_letter(name: str) -> Refused:
    return Refused(ErrorStatus.NOT_FOUND, f"no dead letter {name}: it was redriven, discarded, or never there")


def _given(raw: Raw | UnsetType) -> Raw | None:
    return raw if isinstance(raw, Raw) else None


def _millis(moment: datetime | None) -> int | None:
    return None if moment is None else millis(moment)


def _place(token: str | None) -> tuple[int, str] | None:
    if token is None:
        return None
    at, _, run_id = token.partition(".")
    if not at.isdigit() or not run_id:
        raise Refused(ErrorStatus.INVALID_ARGUMENT, "page_token: not one that ListDeadLetters has answered")
    return int(at), run_id


def _log_lost(ref: RunRef, refused: Refused) -> None:
    log.warning("the execution of a dead letter cannot be loaded", why=refused.message, **about(ref))
