"""Definitions: parsed once a text, found by hash, registered by name."""

from __future__ import annotations

import gc
import hashlib
from collections import OrderedDict
from collections.abc import Callable, Iterable
from typing import Final, NamedTuple, TypeAlias

import structlog
import trio
from msgspec import Raw

from daemon.language import ArgumentCheck, Definition, InvalidDefinition, Machine, parse_definition, processor_of
from daemon.stores.interface import Store
from daemon.stores.rows import Definition as Row
from daemon.stores.rows import DefinitionWrite
from enginekit.messages.json import JSON, decode
from enginekit.messages.status import ErrorStatus, Refused
from enginekit.node import Argument, ArgumentFault

log = structlog.get_logger("history")

CACHED_DEFINITIONS = 512

LARGE = 4 * 1024
"""Texts longer than this are parsed in a thread: that may take long (10 ms a KiB at worst), and the loop goes on
meanwhile."""

HUGE = 32 * 1024
"""Texts longer than this make so many objects that the garbage collector is kept away from them."""


NodeCheck: TypeAlias = Callable[[str, Argument, str | None], Iterable[ArgumentFault]]
"""What a node type (its name) has against arguments in a definition of a tenant's."""


async def _parse(
    text: str, node_types: frozenset[str] | None, check: ArgumentCheck | None, threads: bool
) -> Definition:
    """Raises InvalidDefinition. Cancelled while a thread parses, it waits for that to end (about a second a MiB)."""
    try:
        if len(text) <= LARGE or not threads:
            return parse_definition(text, node_types, check)
        return await trio.to_thread.run_sync(_parse_aside, text, node_types, check)
    except InvalidDefinition:
        raise
    except Exception as error:
        log.exception("a definition could not be read", hash=hash_of(text))
        raise Refused(ErrorStatus.INTERNAL, "the definition could not be read: a fault of the engine's") from error


_GENERATIONS: Final = gc.get_threshold()


def _parse_aside(text: str, node_types: frozenset[str] | None, check: ArgumentCheck | None) -> Definition:
    """In a thread.

    A large definition is hundreds of thousands of objects, and a full collection of garbage goes through all that live
    without letting the loop go on. So there is none meanwhile, and none looks at a large definition later: it holds no
    cycles, and is gone when nobody has it any more.
    """
    if len(text) <= HUGE:
        return parse_definition(text, node_types, check)
    gc.set_threshold(*_GENERATIONS[:2], 1_000_000)
    try:
        made = parse_definition(text, node_types, check)
        gc.freeze()
        return made
    finally:
        gc.set_threshold(*_GENERATIONS)


def definition_text(definition: Raw) -> str:
    """The text of a `definition` parameter: the document itself as JSON, or a string that holds it."""
    value = decode(definition)
    return value if isinstance(value, str) else bytes(definition).decode()


def hash_of(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


class Registered(NamedTuple):
    """A registered definition, parsed."""

    version: int
    hash: str
    definition: Definition


class Definitions:
    """Parsed definitions by the hash of their text, least recently used first. `threads`: large ones are parsed in
    one."""

    def __init__(self, store: Store, node_types: frozenset[str], check: NodeCheck, *, threads: bool) -> None:
        self._store = store
        self._threads = threads
        self._node_types = node_types
        self._check = check
        self._parsed: OrderedDict[str, Definition] = OrderedDict()
        self._checked: OrderedDict[tuple[str, str], None] = OrderedDict()
        """Those whose node types are installed and find nothing wrong, by tenant. One that is only read back need not
        have that."""
        self._rows: OrderedDict[tuple[str, str, int | None], Row] = OrderedDict()
        self._registrations = 0
        self.alone = True
        """Whether all registrations are made here. Else the newest version of a name is read each time."""

    async def parse(self, tenant: str, text: str) -> tuple[str, Definition]:
        """Its hash and meaning. Raises Refused INVALID_ARGUMENT with every fault."""
        key = hash_of(text)
        known = self._parsed.get(key) if (tenant, key) in self._checked else None
        if known is not None:
            self._parsed.move_to_end(key)
            return key, known
        try:
            definition = await _parse(
                text,
                self._node_types,
                lambda name, arguments: self._check(name, arguments, tenant),
                self._threads,
            )
        except InvalidDefinition as invalid:
            faults: list[JSON] = [{"path": fault.path, "message": fault.message} for fault in invalid.faults]
            raise Refused(
                ErrorStatus.INVALID_ARGUMENT,
                "the definition is not valid:\n" + "\n".join(str(fault) for fault in invalid.faults),
                {"faults": faults},
            ) from invalid
        self._checked[tenant, key] = None
        if len(self._checked) > CACHED_DEFINITIONS:
            self._checked.popitem(last=False)
        return key, self._keep(key, definition)

    async def registered(self, tenant: str, name: str, version: int | None) -> Registered:
        """That version, or the newest. Raises Refused NOT_FOUND."""
        row = await self.row(tenant, name, version)
        return Registered(row.version, row.hash, await self._meaning(row.hash, row.text))

    def written(self, write: DefinitionWrite) -> None:
        """It is on disk: under its name, if it has one, it is the newest."""
        if write.name is not None:
            self._registrations += 1
            self._rows.pop((write.tenant, write.name, None), None)

    def forget_registered(self) -> None:
        """What is newest is not known any more: a commit may have been made that nobody heard of."""
        self._rows.clear()
        self._registrations += 1

    async def row(self, tenant: str, name: str, version: int | None) -> Row:
        """As it is stored. Raises Refused NOT_FOUND."""
        row = self._rows.get((tenant, name, version))
        if row is None:
            registrations = self._registrations
            row = await self._store.definition(tenant, name, version)
            # One that was registered while the store was read may be newer than what it answered.
            keep = self.alone or version is not None
            if row is not None and keep and registrations == self._registrations:
                self._rows[tenant, name, version] = row
                if len(self._rows) > CACHED_DEFINITIONS:
                    self._rows.popitem(last=False)
        if row is None:
            which = (
                f'no workflow "{name}" is registered'
                if version is None
                else f'workflow "{name}" has no version {version}'
            )
            raise Refused(ErrorStatus.NOT_FOUND, which)
        return row

    async def load(self, tenant: str, key: str) -> Definition:
        """The definition that a run was started with.

        Raises StoreUnavailable; LookupError when the store does not have it or it can no longer be read.
        """
        known = self._parsed.get(key)
        if known is not None:
            return known
        text = await self._store.definition_text(tenant, key)
        if text is None:
            raise LookupError(f"the store has no definition {key}")
        return await self._meaning(key, text)

    async def machine(self, tenant: str, key: str, state: str | None) -> Machine:
        """The same, or the processor of the Map state of that name in it. Raises as `load`."""
        definition = await self.load(tenant, key)
        if state is None:
            return definition
        found = processor_of(definition, state)
        if found is None:
            raise LookupError(f'definition {key} has no Map state "{state}"')
        return found

    async def _meaning(self, key: str, text: str) -> Definition:
        known = self._parsed.get(key)
        if known is not None:
            self._parsed.move_to_end(key)
            return known
        try:
            # Whatever node types and connections there are today: it was valid when it was written.
            return self._keep(key, await _parse(text, None, None, self._threads))
        except InvalidDefinition as invalid:
            raise LookupError(f"definition {key} cannot be read: {invalid}") from invalid

    def _keep(self, key: str, definition: Definition) -> Definition:
        self._parsed[key] = definition
        if len(self._parsed) > CACHED_DEFINITIONS:
            self._parsed.popitem(last=False)
        return definition
