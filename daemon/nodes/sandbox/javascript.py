"""JavaScript in the child, by quickjs-rs: QuickJS in WebAssembly, without files, sockets, modules or timers.

Each job gets a WebAssembly instance of its own, whose memory begins as zeros; it is made while nobody waits. The
code's value is that of its last expression, or of a `return` outside of any function; a promise is waited for.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Callable
from importlib.resources import files
from typing import Final

import msgspec
import quickjs_rs as quickjs
import wasmtime
from quickjs_rs import _engine, _wasmtime

from daemon.nodes.sandbox.confine import bound_job, settle
from daemon.nodes.sandbox.frames import CAUSE_CHARACTERS, CodeError, Done, Failed, Job, Outcome

MEMORY_BYTES: Final = 64 * 1024 * 1024
"""What an instance that is made beforehand may use, until a job has asked for something else."""
STACK_BYTES: Final = 512 * 1024

_PRELUDE: Final = (files(__package__) / "prelude.js").read_text()
_COMPILING: Final = re.compile(r"\s*at eval_script:(\d+):(\d+)\s*\Z")
_PLACE: Final = re.compile(r"at (?:(\S+) \()?eval_script:(\d+):(\d+)")
_RETURN: Final = "return not in a function"
_WRAPPED: Final = "(async () => {"


class _Prepared:
    """An instance that has run nothing but the prelude."""

    def __init__(self, memory_bytes: int) -> None:
        self.memory_bytes = memory_bytes
        self.print: Callable[[str], None] = lambda _: None
        self._runtime = quickjs.Runtime(memory_limit=memory_bytes, stack_limit=STACK_BYTES)
        self.context: quickjs.Context = self._runtime.new_context(timeout=5.0)
        self.context.register("print", lambda text: self.print(text), is_async=False)
        parts = self.context.eval_handle(_PRELUDE)
        self.take: quickjs.Handle = parts.get("take")
        self.give: quickjs.Handle = parts.get("give")

    def close(self) -> None:
        self._runtime.close()


class JavaScriptInterpreter:
    def __init__(self, confined: bool, compiled: bytes) -> None:
        if compiled:
            _take_compiled(compiled)
        self._confined = confined
        self._runner = asyncio.Runner()
        self._memory_bytes = MEMORY_BYTES
        self._prepared: _Prepared | None = None

    def rest(self) -> None:
        """The next job's instance is there before it comes."""
        if self._prepared is None:
            self._prepared = _Prepared(self._memory_bytes)

    def compiled(self) -> bytes:
        """QuickJS as machine code, which takes a second or two to make."""
        return bytes(_engine._quickjs_artifact().module.serialize())

    def confine(self) -> None:
        """QuickJS is compiled, the last thing that takes threads, and a job has run, so that every file is read."""
        self.run(Job("", "await null", b"null", 10_000, self._memory_bytes, 100), lambda _: None)
        self.rest()
        settle()

    def run(self, job: Job, printed: Callable[[str], None]) -> Outcome:
        self._memory_bytes = job.memory_bytes
        if self._prepared is not None and self._prepared.memory_bytes != job.memory_bytes:
            self._drop()
        self.rest()
        assert self._prepared is not None
        if self._confined:
            bound_job(job.milliseconds, job.memory_bytes)
        self._prepared.print = printed
        try:
            return self._runner.run(_Attempt(job, self._prepared).run())
        finally:
            self._drop()

    def close(self) -> None:
        self._drop()
        self._runner.close()

    def _drop(self) -> None:
        """The instance goes, and with it all that its job has left."""
        if self._prepared is not None:
            prepared, self._prepared = self._prepared, None
            prepared.close()


def _take_compiled(compiled: bytes) -> None:
    """Use machine code that was made by `compiled`. The library keeps its own for all instances of a process, and has
    no other way to be given some."""
    engine = _wasmtime.shared_wasmtime_engine()
    _wasmtime._SHARED_ARTIFACTS["quickjs"] = _wasmtime.SharedWasmArtifact(
        module=wasmtime.Module.deserialize(engine, compiled),
        linker=_engine._build_shared_linker(engine),
        build_id=b"",
    )


class _Attempt:
    """One job in its instance."""

    def __init__(self, job: Job, prepared: _Prepared) -> None:
        self._job = job
        self._prepared = prepared
        self._context = prepared.context
        self._ends_at = time.monotonic() + job.milliseconds / 1000
        self._shift = 0

    async def run(self) -> Outcome:
        job = self._job
        try:
            self._prepared.take.call(job.input.decode())
            ending = self._prepared.give.call(await self._value())
            given = (await ending.await_promise(timeout=self._left())).to_python()
            return _outcome(str(given))
        except (quickjs.InterruptError, quickjs.DeadlockError) as error:
            # What is interrupted among the reactions of promises leaves them unresolved.
            if time.monotonic() >= self._ends_at:
                return Failed(CodeError.TIMEOUT, f"it ran longer than {job.milliseconds} ms", spent=True)
            if isinstance(error, quickjs.DeadlockError):
                return Failed(CodeError.ERROR, "Error: it waits for a promise that nothing resolves")
            return Failed(CodeError.ERROR, f"InternalError: {error}")
        except quickjs.MemoryLimitError:
            return Failed(CodeError.MEMORY_LIMIT, f"it used more than {job.memory_bytes} bytes", spent=True)
        except quickjs.JSError as error:
            return self._thrown(error)
        except (wasmtime.Trap, wasmtime.WasmtimeError) as error:
            if "call stack exhausted" in str(error):
                return Failed(
                    CodeError.STACK_OVERFLOW, "too many calls, or too many levels, in one another", spent=True
                )
            return Failed(CodeError.CRASHED, f"the interpreter trapped: {str(error)[-200:]}", spent=True)

    def _left(self) -> float:
        return max(self._ends_at - time.monotonic(), 0.001)

    async def _value(self) -> quickjs.Handle:
        """Run the source. It is compiled as a script; if that cannot be, as one with `await` outside of functions; and
        with a `return` there, as a function's body. Only what compiles runs, so it runs once."""
        try:
            return await self._run(self._job.source, waits=False)
        except quickjs.JSError as error:
            if not _is_compiling(error):
                raise
            first = error
        if _RETURN not in first.message:
            try:
                return await self._run(self._job.source, waits=True)
            except quickjs.JSError as error:
                if not _is_compiling(error) or _RETURN not in error.message:
                    raise
        self._shift = len(_WRAPPED)
        return await self._run(f"{_WRAPPED}{self._job.source}\n}})()", waits=False)

    async def _run(self, source: str, *, waits: bool) -> quickjs.Handle:
        if waits:
            return await self._context.eval_handle_async(source, timeout=self._left())
        # The synchronous call takes its time from the context.
        self._context._timeout = self._left()
        return self._context.eval_handle(source)

    def _thrown(self, error: quickjs.JSError) -> Failed:
        compiling = _COMPILING.match(error.stack or "") if error.name == "SyntaxError" else None
        if compiling is not None:
            line, column = int(compiling[1]), int(compiling[2])
            column -= self._shift if line == 1 else 0
            return Failed(CodeError.SYNTAX_ERROR, f"{error.message} (line {line}, column {max(column, 1)})")
        return Failed(CodeError.ERROR, _described(error.name, error.message, error.stack))


def _is_compiling(error: quickjs.JSError) -> bool:
    return error.name == "SyntaxError" and _COMPILING.match(error.stack or "") is not None


def _described(name: str, message: str, stack: str | None) -> str:
    text = f"{name}: {message}" if message else name
    place = _PLACE.search(stack or "")
    if place is None:
        return text[:CAUSE_CHARACTERS]
    function = place[1] or ""
    where = f"line {place[2]}" if function in ("", "<eval>", "<anonymous>") else f"line {place[2]} in {function}"
    return f"{text[: CAUSE_CHARACTERS - 200]} ({where[:150]})"


def _outcome(given: str) -> Outcome:
    """What the prelude's `give` answers: a result's JSON, or what was thrown."""
    if given.startswith("r"):
        text = given[1:]
        try:
            msgspec.json.decode(text)
        except (msgspec.DecodeError, UnicodeEncodeError) as error:
            cause = f"the result is not JSON for everybody (half of a surrogate pair?): {error}"
            return Failed(CodeError.INVALID_OUTPUT, cause)
        return Done(text.encode())
    match given.split("\0", 3):
        case ["fnone", kind, *_]:
            return Failed(CodeError.INVALID_OUTPUT, f"the result is a {kind}, which has no JSON form")
        case ["funfit", name, message, *_]:
            return Failed(CodeError.INVALID_OUTPUT, f"the result has no JSON form: {name}: {message}")
        case ["fmemory", *_]:
            return Failed(CodeError.MEMORY_LIMIT, "it used more memory than its limit", spent=True)
        case ["fthrown", name, message, stack]:
            return Failed(CodeError.ERROR, _described(name, message, stack))
        case _:
            return Failed(CodeError.CRASHED, "the interpreter answered out of turn", spent=True)
