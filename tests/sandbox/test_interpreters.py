"""What code gives, prints and fails with, in either language. In this process: no pool, and no time is waited."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import closing

import pytest

from daemon.nodes.sandbox.frames import CodeError, Done, Failed, Job
from daemon.nodes.sandbox.host import Interpreter, interpreter, run_job
from daemon.nodes.sandbox.javascript import JavaScriptInterpreter
from daemon.nodes.sandbox.python import PythonInterpreter
from enginekit.messages.json import JSON, decode, encode

_made: dict[str, Interpreter] = {}


@pytest.fixture(scope="module", autouse=True)
def made() -> Iterator[None]:
    """One interpreter of each language for all tests."""
    for language in ("python", "javascript"):
        _made[language] = interpreter(language, confined=False)
    yield
    for one in _made.values():
        one.close()


def run(language: str, source: str, input: JSON = None, *, output_bytes: int = 65536) -> tuple[Done | Failed, str]:
    made = _made[language]
    log: list[str] = []
    outcome = run_job(made, job(source, input, output_bytes=output_bytes), log.append)
    return outcome, "".join(log)


def job(source: str, input: JSON = None, *, tenant: str = "acme", output_bytes: int = 65536) -> Job:
    return Job(tenant, source, bytes(encode(input)), 60_000, 32 << 20, output_bytes)


@pytest.mark.parametrize(
    ("language", "source", "input", "result"),
    [
        ("python", "1 + 1", None, 2),
        ("python", "input", {"a": [1, 2.5, None, True, "é😀"]}, {"a": [1, 2.5, None, True, "é😀"]}),
        ("python", "return input['a'] * 2", {"a": 21}, 42),
        ("python", "if input > 1:\n    return 'many'\n'one'", 2, "many"),
        ("python", "total = 0\nfor x in input:\n    total += x\ntotal", [1, 2, 3], 6),
        ("python", "def main(x):\n    return x + 1\nmain(input)", 1, 2),
        ("python", "async def main():\n    return 5\nawait main()", None, 5),
        ("python", "x = 1", None, None),
        ("python", "2 ** 100", None, 2**100),
        ("python", "(1, 'a')", None, [1, "a"]),
        ("python", "import json, re, math\njson.dumps({'a': math.floor(2.5)})", None, '{"a": 2}'),
        ("javascript", "1 + 1", None, 2),
        ("javascript", "input", {"a": [1, 2.5, None, True, "é😀"]}, {"a": [1, 2.5, None, True, "é😀"]}),
        ("javascript", "return input.a * 2", {"a": 21}, 42),
        ("javascript", "if (input > 1) { return 'many' }\nreturn 'one'", 2, "many"),
        ("javascript", "let total = 0; for (const x of input) total += x; total", [1, 2, 3], 6),
        ("javascript", "const main = (x) => x + 1; main(input)", 1, 2),
        ("javascript", "const main = async () => 5; main()", None, 5),
        ("javascript", "const x = await Promise.resolve(5); x + 1", None, 6),
        ("javascript", "const x = await Promise.resolve(5); return x + 1", None, 6),
        ("javascript", "const input2 = input; let x = 1;", None, None),
        ("javascript", "const input = 7; input", 1, 7),
        ("javascript", "new Date(0)", None, "1970-01-01T00:00:00.000Z"),
        ("javascript", "({a: undefined, b: NaN})", None, {"b": None}),
        ("javascript", "input", {"__proto__": 1}, {"__proto__": 1}),
    ],
)
def test_the_value_of_the_last_expression_or_of_a_return_is_the_result(
    language: str, source: str, input: JSON, result: JSON
) -> None:
    outcome, log = run(language, source, input)
    assert isinstance(outcome, Done), outcome
    assert decode(outcome.output) == result
    assert log == ""


@pytest.mark.parametrize(
    ("language", "source", "error", "cause"),
    [
        ("python", "x = 1\nx = (", CodeError.SYNTAX_ERROR, r"unexpected EOF.* \(line 2, column 6\)"),
        ("python", "def f():\n    yield 1", CodeError.SYNTAX_ERROR, r"does not yet support yield.* \(line 2, "),
        ("python", "x = 1\n\ny = x / 0", CodeError.ERROR, r"ZeroDivisionError: division by zero \(line 3\)"),
        ("python", "def f(x):\n    return 1 / x\nf(0)", CodeError.ERROR, r"ZeroDivision.* \(line 2 in f\)"),
        ("python", "raise ValueError('no stock')", CodeError.ERROR, r"ValueError: no stock \(line 1\)"),
        ("python", "raise TimeoutError('the shop')", CodeError.ERROR, r"TimeoutError: the shop \(line 1\)"),
        ("python", "input['b']", CodeError.ERROR, r"KeyError: '?b'? \(line 1\)"),
        ("python", "class A: pass\n{'a': [A()]}", CodeError.INVALID_OUTPUT, r"the result\.a\[0\] is a A, which"),
        ("python", "{1: 2}", CodeError.INVALID_OUTPUT, "key 1, and JSON's are strings"),
        ("python", "float('inf')", CodeError.INVALID_OUTPUT, "inf, which JSON does not have"),
        ("javascript", "let x = 1;\nlet y = ;", CodeError.SYNTAX_ERROR, r"unexpected token.* \(line 2, column \d+\)"),
        ("javascript", "return )", CodeError.SYNTAX_ERROR, r"unexpected token.* \(line 1, column \d+\)"),
        ("javascript", "\n\nnull.x", CodeError.ERROR, r"TypeError: cannot read property 'x' of null \(line 3\)"),
        (
            "javascript",
            "\nfunction f() { throw new RangeError('r') }\nf()",
            CodeError.ERROR,
            r"RangeError: r \(line 2 in f\)",
        ),
        ("javascript", "\nawait null;\nnull.x", CodeError.ERROR, r"TypeError: .* \(line 3\)"),
        ("javascript", "\nreturn [].reduce(f)", CodeError.ERROR, r"ReferenceError: f"),
        ("javascript", "throw 'no stock'", CodeError.ERROR, "Error: no stock"),
        ("javascript", "Promise.reject({code: 5})", CodeError.ERROR, r'Error: \{"code":5\}'),
        ("javascript", "JSON.parse('{')", CodeError.ERROR, "SyntaxError: .*line 1"),
        ("javascript", "10n", CodeError.INVALID_OUTPUT, "no JSON form: TypeError: BigInt"),
        ("javascript", "Symbol('a')", CodeError.INVALID_OUTPUT, "the result is a symbol"),
    ],
)
def test_a_failure_tells_what_and_where(language: str, source: str, error: CodeError, cause: str) -> None:
    outcome, _ = run(language, source, {"a": 1})
    assert isinstance(outcome, Failed), outcome
    assert outcome.error is error
    assert re.match(rf".*{cause}", outcome.cause, re.DOTALL), outcome.cause


@pytest.mark.parametrize(
    ("language", "source", "log"),
    [
        ("python", "print('a', 1, input)\nprint('b', end='')", "a 1 {'x': 1}\nb"),
        ("python", "print('before')\n1 / 0", "before\n"),
        (
            "javascript",
            "console.log('a', 1, input, [null], undefined, new TypeError('no')); print('b')",
            'a 1 {"x":1} [null] undefined TypeError: no\nb\n',
        ),
        ("javascript", "console.error('before'); null.x", "before\n"),
        ("javascript", "await null; console.warn('later'); throw 1", "later\n"),
    ],
)
def test_what_is_printed_is_kept(language: str, source: str, log: str) -> None:
    assert run(language, source, {"x": 1})[1] == log


@pytest.mark.parametrize(
    ("language", "source"),
    [
        ("python", "for i in range(100): print('a' * 999)"),
        ("javascript", "for (let i = 0; i < 100; i++) print('a'.repeat(999))"),
    ],
)
def test_the_beginning_of_a_long_log_is_kept(language: str, source: str) -> None:
    outcome, log = run(language, source, output_bytes=1 << 20)
    assert isinstance(outcome, Done)
    assert len(log) == 16 * 1024


def test_the_next_instance_of_javascript_begins_with_nothing_of_the_last() -> None:
    canary = "canary-of-the-other-tenant-"
    with closing(JavaScriptInterpreter(False, b"")) as made:
        look_for(canary, made)


def look_for(canary: str, made: JavaScriptInterpreter) -> None:
    for source in (f"globalThis.x = '{canary}' + input; console.log(x); x", f"throw new Error('{canary}' + input)"):
        text = f"{canary}{source}"
        # Built here from two parts, so that what is looked for is not itself in the source of the test's next job.
        run_job(made, job(source, text, tenant="other"), lambda _: None)
        made.rest()
        assert made._prepared is not None
        memory = made._prepared.context.create_snapshot().to_bytes()
        assert len(memory) > 100_000
        assert canary.encode() not in memory
    # And it would be found.
    assert made._prepared is not None
    made._prepared.context.eval(f"globalThis.x = '{canary}'.toUpperCase()")
    assert canary.upper().encode() in made._prepared.context.create_snapshot().to_bytes()


def test_python_changes_its_process_with_the_tenant() -> None:
    with closing(PythonInterpreter(False)) as made:
        first = pid_for("acme", made)
        assert pid_for("acme", made) == first
        assert pid_for("other", made) != first


def pid_for(tenant: str, made: PythonInterpreter) -> int:
    assert run_job(made, job("1", tenant=tenant), lambda _: None) == Done(b"1")
    assert made._pool is not None
    with made._pool.checkout() as session:
        pid = session.worker_pid
    assert pid is not None
    return pid
