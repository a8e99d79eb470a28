"""`engine`: the command line's entry. Names the commands; each is imported when it is used, so that asking for help, or
a daemon on another machine, never loads the services."""

from __future__ import annotations

import importlib
import sys
from typing import Final

import click

_COMMANDS: Final[dict[str, tuple[str, str]]] = {
    "serve": ("serve:serve", "Run the daemon."),
    "install-service": ("install:install_service", "Install the daemon as a systemd service."),
    "start": ("start:start", "Start an execution of a workflow, or of a definition in a file."),
    "describe": ("executions:describe", "Show an execution and what runs in it now."),
    "list": ("executions:list_", "List executions, newest first."),
    "history": ("history:history", "Show an execution's events."),
    "signal": ("executions:signal", "Send a signal to an execution."),
    "cancel": ("executions:cancel", "Ask an execution to end; its tasks are cancelled."),
    "terminate": ("executions:terminate", "End an execution at once."),
    "redrive": ("letters:redrive", "Reopen an execution that failed; it goes on where it stopped."),
    "dlq": ("letters:dlq", "List, show, redrive and discard dead letters."),
    "validate": ("validate:validate", "Check a definition and report every fault in it."),
    "register": ("definitions:register", "Store a definition under a name."),
    "definitions": ("definitions:definitions", "List the registered definitions."),
    "schedule": (
        "schedules:schedule",
        "Start executions by the clock: create, pause, trigger … schedules.",
    ),
    "worker": ("worker:worker", "Run a worker for your own activities."),
    "task": ("task:task", "End a task by its token: complete, fail, heartbeat."),
    "queues": ("operations:queues", "Show the task queues."),
    "console": ("console:console", "Watch the daemon and its executions in the terminal."),
    "status": ("operations:status", "Show the daemon's services, shards and store."),
    "token": ("token:token", "Sign a token with the local daemon's key."),
}


class Commands(click.Group):
    """A group whose commands are named above."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _COMMANDS:
            return None
        module, _, name = _COMMANDS[cmd_name][0].partition(":")
        command = getattr(importlib.import_module(f"daemon.cli.{module}"), name)
        assert isinstance(command, click.Command)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in _COMMANDS.items()])


@click.command(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="execution-plane", prog_name="engine")
def engine() -> None:
    """Run workflows durably, and look after them.

    The daemon is found by ENGINE_URL and ENGINE_TOKEN, else by its data folder (ENGINE_DATA_DIR).

    Exit status: 0 done, 1 the workflow failed or the file is not valid, 2 usage, 3 the daemon refused, 4 it could
    not be reached.
    """


def main() -> None:
    """The console script."""
    try:
        code = engine(standalone_mode=False)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except click.Abort:
        sys.exit(130)
    sys.exit(code if isinstance(code, int) else 0)
