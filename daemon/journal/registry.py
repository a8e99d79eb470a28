"""The Frontend's calls about definitions: register, get, list."""

from __future__ import annotations

import trio
from msgspec import Raw

from daemon.clock import moment
from daemon.journal.batch import Answer
from daemon.journal.definitions import definition_text
from daemon.journal.session import Session
from daemon.links.interface import Request
from daemon.stores.rows import DefinitionWrite
from enginekit.messages import calls
from enginekit.messages.json import encode


class DefinitionCalls:
    """Answers calls within one session."""

    def __init__(self, session: Session) -> None:
        self._session = session

    async def register(self, request: Request, call: calls.RegisterWorkflow) -> None:
        """The newest version's text again is that version; another text is the next one."""
        session, tenant = self._session, request.caller.tenant
        text = definition_text(call.definition)
        key, _ = await session.definitions.parse(tenant, text)
        name = (tenant, f"definition {call.name}")
        while name in session.held:
            await session.held[name].wait()
        session.held[name] = trio.Event()
        gathered = False
        try:
            newest = await session.store.definition(tenant, call.name, None)
            if newest is not None and newest.hash == key:
                request.answer(calls.RegisterWorkflowResult(name=call.name, version=newest.version))
                return
            version = 1 if newest is None else newest.version + 1
            await session.committer.room()
            batch = session.committer.gathering
            batch.definitions.append(
                DefinitionWrite(
                    tenant=tenant,
                    hash=key,
                    text=text,
                    name=call.name,
                    version=version,
                    registered_at=session.clock.now(),
                )
            )
            batch.held.append(name)
            batch.bytes += len(text)
            batch.answers.append(Answer(request, calls.RegisterWorkflowResult(name=call.name, version=version)))
            gathered = True
            session.committer.touch()
        finally:
            if not gathered:
                session.held.pop(name).set()

    async def get(self, request: Request, call: calls.GetDefinition) -> None:
        row = await self._session.definitions.row(request.caller.tenant, call.name, call.version)
        text = row.text
        # A document is given back as one, text in another notation as a string.
        definition = Raw(text.encode()) if text.lstrip().startswith("{") else encode(text)
        request.answer(
            calls.GetDefinitionResult(
                name=row.name,
                version=row.version,
                definition=definition,
                registered_at=moment(row.registered_at),
            )
        )

    async def list(self, request: Request, call: calls.ListDefinitions) -> None:
        found = await self._session.store.list_definitions(request.caller.tenant, call.page_size + 1, call.page_token)
        page = found[: call.page_size]
        request.answer(
            calls.ListDefinitionsResult(
                definitions=[
                    calls.DefinitionSummary(
                        name=entry.name, version=entry.version, registered_at=moment(entry.registered_at)
                    )
                    for entry in page
                ],
                next_page_token=page[-1].name if len(found) > len(page) else None,
            )
        )
