"""Node types by name: the daemon's own, one file each in this folder, and whatever entry points install.

A file of ours is named like its resource, `_` standing for `:` (`ai_openai.py` runs `ai:openai`), and has one public
function `create(settings: Settings) -> Node`. What several of them share has a folder in this one. An entry point of
the group `engine.nodes` has the resource's name and points at something that, called without arguments, gives a Node.
Names are known from the start; a node type is imported when its first task runs, or the first definition that names it
is checked.
"""

from __future__ import annotations

import importlib
import inspect
import pkgutil
import re
import threading
from collections.abc import Callable, Iterable, Mapping
from importlib.metadata import EntryPoint, entry_points
from typing import Protocol, runtime_checkable

import structlog
import trio

import daemon.nodes
from daemon.settings import Settings
from enginekit.node import Argument, ArgumentFault, Checking, Node

ENTRY_POINT_GROUP = "engine.nodes"
RESERVED = ("arn:", "activity:", "workflow:", "signal:")
"""What a resource that is not run by a node type starts with."""

_NAME = re.compile(r"[a-z][a-z0-9-]*(:[A-Za-z0-9][A-Za-z0-9_-]*)*\Z")
_NOT_NODES = frozenset({"registry", "attempt"})


_log = structlog.get_logger("nodes")


class NodeTypeError(Exception):
    """A node type cannot be used as it is installed. The message says which, whose, and what to do."""


@runtime_checkable
class Closing(Protocol):
    """A node type that keeps something open between calls may have this as well."""

    async def aclose(self) -> None: ...


@runtime_checkable
class Serving(Protocol):
    """A node type that has something to do between calls may have this as well."""

    async def serve(self) -> None:
        """Until cancelled. Its end, or what it raises, is the Worker's."""


class NodeTypes:
    """Every node type of this process.

    Raises NodeTypeError when two have one name, or a name is none that a `Resource` can have. `installed` replaces
    the installed entry points; `made` are nodes that take the place of the daemon's own of their names.
    """

    def __init__(
        self,
        settings: Settings,
        installed: Iterable[EntryPoint] | None = None,
        *,
        made: Mapping[str, Node] | None = None,
    ) -> None:
        self._settings = settings
        self._nodes: dict[str, Node] = dict(made or {})
        self._makers: dict[str, Callable[[], Node]] = {}
        self._origins: dict[str, str] = {}
        # Large definitions are checked in a thread, and that may be what makes a node type.
        self._making = threading.Lock()
        self._made = trio.Event()
        self._token: trio.lowlevel.TrioToken | None = None
        for module in pkgutil.iter_modules(daemon.nodes.__path__):
            if not module.ispkg and module.name not in _NOT_NODES:
                self._add_own(module.name)
        for entry in entry_points(group=ENTRY_POINT_GROUP) if installed is None else installed:
            self._add_installed(entry)
        strangers = self._nodes.keys() - self._makers.keys()
        if strangers:
            raise NodeTypeError(f"{', '.join(sorted(strangers))} cannot take the place of a node type: there is none")

    def names(self) -> frozenset[str]:
        """The resources that can run here. Importing nothing, this does not say that each is sound."""
        return frozenset(self._makers)

    def get(self, name: str) -> Node:
        """The node type of that name, imported and made on first use.

        Raises NodeTypeError: there is none of that name, or it is broken (each call tries again).
        """
        node = self._nodes.get(name)
        if node is None:
            with self._making:
                node = self._nodes.get(name)
                if node is None:
                    node = self._nodes[name] = self._make(name)
                    if self._token is not None:
                        self._token.run_sync_soon(self._tell)
        return node

    async def serve(self) -> None:
        """What node types do between calls, those that are yet to be made included. One caller at a time, until
        cancelled."""
        serving: set[str] = set()
        self._token = trio.lowlevel.current_trio_token()
        try:
            async with trio.open_nursery() as nursery:
                while True:
                    self._made = trio.Event()
                    for name, node in list(self._nodes.items()):
                        if isinstance(node, Serving) and name not in serving:
                            serving.add(name)
                            nursery.start_soon(node.serve)
                    await self._made.wait()
        finally:
            self._token = None

    def _tell(self) -> None:
        self._made.set()

    def check(self, name: str, arguments: Argument, tenant: str | None) -> list[ArgumentFault]:
        """What the node type of that name has against arguments of a definition. Nothing where it has no opinion, or is
        broken: its tasks will tell."""
        try:
            node = self.get(name)
            return list(node.check(arguments, tenant)) if isinstance(node, Checking) else []
        except NodeTypeError as error:
            _log.warning("arguments not checked", resource=name, reason=str(error))
        except Exception:  # noqa: BLE001 - a defect in it keeps nobody from registering
            _log.exception("a node type failed to check arguments", resource=name)
        return []

    def replace(self, name: str, node: Node) -> None:
        """Have this take the place of the node type of that name. Raises NodeTypeError: there is none."""
        if name not in self._makers:
            raise NodeTypeError(f"{name} cannot take the place of a node type: there is none of that name")
        self._nodes[name] = node

    async def aclose(self) -> None:
        """Close what node types keep open. They can not be used afterwards. Cancelled: the rest is left to the
        process's end."""
        for node in self._nodes.values():
            if isinstance(node, Closing):
                await node.aclose()

    def _make(self, name: str) -> Node:
        maker = self._makers.get(name)
        if maker is None:
            raise NodeTypeError(
                f"no node type {name!r} is installed (there are {', '.join(sorted(self._makers))}); install the "
                f"package that has it beside the daemon, or use `activity:{name}` and poll that queue"
            )
        try:
            node = maker()
        except Exception as error:
            raise NodeTypeError(
                f"node type {name!r} of {self._origins[name]} is broken: {type(error).__name__}: {error}"
            ) from error
        if not inspect.iscoroutinefunction(getattr(node, "run", None)):
            raise NodeTypeError(
                f"node type {name!r} of {self._origins[name]} is broken: {type(node).__name__} has no "
                "`async def run(self, call)`"
            )
        return node

    def _add_own(self, stem: str) -> None:
        def make() -> Node:
            create: Callable[[Settings], Node] = importlib.import_module(f"daemon.nodes.{stem}").create
            return create(self._settings)

        self._add(stem.replace("_", ":"), "the daemon", make)

    def _add_installed(self, entry: EntryPoint) -> None:
        def make() -> Node:
            create: Callable[[], Node] = entry.load()
            return create()

        origin = f"package {entry.dist.name} {entry.dist.version}" if entry.dist else "an unnamed package"
        self._add(entry.name, f"{origin} ({entry.value})", make)

    def _add(self, name: str, origin: str, make: Callable[[], Node]) -> None:
        if not _NAME.match(name) or name.startswith(RESERVED):
            raise NodeTypeError(
                f"node type {name!r} of {origin} cannot be a resource: it needs a name like `acme:render`, not "
                f"starting with {', '.join(RESERVED)}"
            )
        if name in self._makers:
            raise NodeTypeError(
                f"node type {name!r} is there twice: in {self._origins[name]} and in {origin}; uninstall or rename one"
            )
        self._makers[name] = make
        self._origins[name] = origin
