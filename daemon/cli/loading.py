"""`MODULE:APP` of `engine worker`: importing it, and saying what is wrong where that does not work out."""

from __future__ import annotations

import difflib
import importlib
import os
import sys
import traceback
from collections.abc import Callable, Mapping
from typing import Any

import click

from enginekit.activity import Activity, prepare
from enginekit.client import Client
from enginekit.worker import Worker

FORM = "MODULE:NAME, as in shop.activities:app"

Factory = Callable[[Client], Worker]


def load_app(text: str) -> Mapping[str, Activity] | Factory:
    """What `MODULE:NAME` names: activities by queue, or a function that makes a worker. The current folder is looked
    in first.

    Raises click.BadParameter with what was wrong, where, and what to do.
    """
    module_name, colon, path = text.partition(":")
    if not colon or not module_name or not path:
        raise _bad(f"{text!r}: write it as {FORM}")
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    found: Any = _module(module_name)
    for step in path.split("."):
        try:
            found = getattr(found, step)
        except AttributeError:
            raise _bad(f"{module_name} has no {path!r}{_near(step, found)}") from None
    if isinstance(found, Mapping):
        return _checked(text, found)
    if callable(found):
        return _factory(text, found)
    raise _bad(
        f"{text} is {_a(found)}; it has to be activities by their queues (a dict, or enginekit.worker.Activities), or "
        "a function that takes the client and returns a Worker"
    )


def _module(name: str) -> object:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is not None and (name == error.name or name.startswith(f"{error.name}.")):
            raise _bad(f"there is no module {error.name!r} in {os.getcwd()} or on PYTHONPATH") from None
        raise _bad(_unimportable(name, error)) from error
    except (Exception, SystemExit) as error:
        raise _bad(_unimportable(name, error)) from error


def _unimportable(name: str, error: BaseException) -> str:
    return f"{name} cannot be imported: {_told(error)}"


def _told(error: BaseException) -> str:
    """With the line that raised it, where it is a line of somebody's file."""
    lines = [frame for frame in traceback.extract_tb(error.__traceback__) if "importlib" not in frame.filename]
    where = f" ({lines[-1].filename}, line {lines[-1].lineno})" if len(lines) > 1 else ""
    return f"{type(error).__name__}: {error}{where}"


def _near(name: str, owner: object) -> str:
    close = difflib.get_close_matches(name, [known for known in dir(owner) if not known.startswith("_")], n=1)
    return f"; did you mean {close[0]!r}?" if close else ""


def _checked(text: str, activities: Mapping[Any, Any]) -> Mapping[str, Activity]:
    if not activities:
        raise _bad(f"{text} has no activities in it: name a queue and its function")
    for queue, function in activities.items():
        try:
            prepare(queue, function)
        except (TypeError, ValueError) as error:
            raise _bad(f"{text}: {error}") from error
    return activities


def _factory(text: str, function: Callable[[Client], object]) -> Factory:
    def make(client: Client) -> Worker:
        try:
            made = function(client)
        except Exception as error:
            raise _bad(f"{text} was called with the client and raised {_told(error)}") from error
        if not isinstance(made, Worker):
            raise _bad(
                f"{text} was called with the client and returned {_a(made)}, not a Worker. To serve one function, name "
                'its queue: app = {"QUEUE": function}'
            )
        return made

    return make


def _a(value: object) -> str:
    return "None" if value is None else f"a value of type {type(value).__name__}"


def _bad(message: str) -> click.BadParameter:
    return click.BadParameter(message, param_hint="MODULE:APP")
