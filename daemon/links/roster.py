"""Who is there, of the processes that share the work, and how they are: each says so itself, every second, over the
exchange. Whoever is not heard of any more is shown as silent, and after a while not at all; nobody is waited for.

What a process says of itself comes from its owner; nothing here is decided by it, for it may be a moment old.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import datetime
from typing import Final

import msgspec
import structlog
import trio

from daemon.drivers.faults import ServerAway
from daemon.links.exchange import Exchange, Heard
from enginekit.messages.calls import ProcessView
from enginekit.messages.subscriptions import ServiceRate

ANNOUNCE_SECONDS: Final = 1.0
SILENT_SECONDS: Final = 5.0
"""Who has not been heard of for so long is called silent."""
FORGET_SECONDS: Final = 600.0
"""... and for so long, or among too many, is forgotten."""
DEPART_SECONDS: Final = 1.0
MOST: Final = 256
"""So many are kept: those that were heard last."""

log = structlog.get_logger("links")


class Announcement(msgspec.Struct, frozen=True, kw_only=True):
    """What a process says. `rates`: what its services did a second, since it said so last."""

    view: ProcessView
    rates: list[ServiceRate] = []


_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder(Announcement)


class Roster:
    """Of one process, whose name is `process` and which says what `say` gives. `ago`: the moment that was so many
    seconds ago. It `listens` where somebody asks it who is there."""

    def __init__(
        self,
        exchange: Exchange,
        process: str,
        say: Callable[[], Announcement],
        ago: Callable[[float], datetime],
        *,
        listens: bool,
    ) -> None:
        self._exchange = exchange
        self._process = process
        self._say = say
        self._ago = ago
        self._listens = listens
        self._heard: dict[str, tuple[float, Announcement]] = {}
        """The others, and when each was last heard of, in `trio.current_time()`."""
        self._departed = False
        self._saying = trio.Lock()
        """What is said last is what the others keep: a departure waits for an announcement that is on its way."""

    async def run(self) -> None:
        """Say and hear, until cancelled, or it departs. Raises ServerUnusable."""
        forget: list[str] = []
        while True:
            async with self._saying:
                if self._departed:
                    return
                try:
                    said = _encoder.encode(self._say())
                    heard = await self._exchange.call_out(self._process, said, forget, listen=self._listens)
                except ServerAway:
                    pass  # The exchange says so itself; what was heard grows old.
                else:
                    forget = self._take(heard)
            await trio.sleep(ANNOUNCE_SECONDS)

    async def depart(self) -> None:
        """This process ends: nobody is to look for it. Bounded by DEPART_SECONDS. Raises ServerUnusable."""
        self._departed = True
        try:
            with trio.move_on_after(DEPART_SECONDS):
                async with self._saying:
                    await self._exchange.call_out(self._process, b"", [self._process], listen=False)
        except ServerAway:
            log.info("the exchange is away; this process is forgotten by itself", process=self._process)

    def others(self) -> list[ProcessView]:
        """As they last said: those that are heard of, by their names, then those that are silent, the last first."""
        now = trio.current_time()
        speaking: list[ProcessView] = []
        silent: list[tuple[float, ProcessView]] = []
        for at, said in self._heard.values():
            if now - at < SILENT_SECONDS:
                speaking.append(said.view)
            else:
                silent.append((now - at, msgspec.structs.replace(said.view, silent_since=self._ago(now - at))))
        return sorted(speaking, key=lambda view: view.process) + [
            view for _, view in sorted(silent, key=lambda each: each[0])
        ]

    def rates(self) -> list[ServiceRate]:
        """What each of the others that are heard of has done."""
        now = trio.current_time()
        return [rate for at, said in self._heard.values() if now - at < SILENT_SECONDS for rate in said.rates]

    def _take(self, heard: list[Heard]) -> list[str]:
        """Whom to forget."""
        now = trio.current_time()
        forget: list[str] = []
        known: dict[str, tuple[float, Announcement]] = {}
        for each in sorted(heard, key=lambda each: each.seconds_ago):
            if each.process == self._process:
                continue
            if len(known) >= MOST - 1 or each.seconds_ago >= FORGET_SECONDS:
                forget.append(each.process)
                continue
            try:
                known[each.process] = now - each.seconds_ago, _decoder.decode(each.said)
            except msgspec.MsgspecError as error:
                # Of another version, and what it says is not even like ours.
                log.debug("what a process says of itself cannot be read", process=each.process, why=str(error))
        self._heard = known
        return forget


def added_up(rates: Iterable[ServiceRate]) -> list[ServiceRate]:
    """One for each thing that a service does."""
    sums: dict[tuple[str, str], float] = {}
    for rate in rates:
        key = rate.service, rate.what
        sums[key] = sums.get(key, 0.0) + rate.per_second
    return [ServiceRate(service=service, what=what, per_second=total) for (service, what), total in sums.items()]
