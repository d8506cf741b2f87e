"""The command line: one module a command, each imported when it is called for."""

from __future__ import annotations

import os
import sys
import traceback
from importlib import import_module
from typing import Any

import click

from energysim.errors import EnergysimError, InputErrors, did_you_mean

DEBUG_VARIABLE = "ENERGYSIM_DEBUG"
"""Environment variable that makes a bug print its traceback."""

EXIT_BUG = 1
EXIT_INTERRUPTED = 130
"""As shells count it: 128 plus the number of the signal."""

# Our matrices are small: starting threads for them costs more than they save. Whoever wants threads
# says so in the environment. This must happen before NumPy is imported.
for _variable in ("OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "OMP_NUM_THREADS"):
    os.environ.setdefault(_variable, "1")

_MODULES = {
    "run": "run",
    "train": "train",
    "prune": "prune",
    "shrink": "shrink",
    "lowrank": "lowrank",
    "list": "list_",
    "show": "show",
    "check": "check",
    "cache": "cache_",
    "formats": "formats",
    "compare": "compare",
    "sweep": "sweep",
    "search": "search",
    "pareto": "pareto",
    "compare-methods": "compare_methods",
    "plot": "plot",
    "import": "import_",
    "report": "report",
    "validate": "validate",
}


def _message(error: EnergysimError) -> str:
    """Put many problems under one another, with their count where there is more than one."""
    if not isinstance(error, InputErrors):
        return str(error)
    lines = [line for problem in error.problems for line in problem.splitlines()]
    text = "\n       ".join(lines)
    count = len(error.problems)
    return f"{text}\n{count} errors" if count > 1 else text


class _Commands(click.Group):
    """Imports a command when it is asked for, and turns exceptions into exit codes."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's
        return list(_MODULES)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        if cmd_name not in _MODULES:
            return None
        command = import_module(f"energysim.cli.{_MODULES[cmd_name]}").command
        assert isinstance(command, click.Command)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        word = args[0]
        if word not in _MODULES and not word.startswith("-") and not ctx.resilient_parsing:
            hint = did_you_mean(word, _MODULES) or f" Commands: {', '.join(_MODULES)}"
            ctx.fail(f"no command named '{word}'.{hint}")
        return super().resolve_command(ctx, args)

    def invoke(self, ctx: click.Context) -> Any:
        for stream in (sys.stdout, sys.stderr):
            if hasattr(stream, "reconfigure"):  # a terminal without these letters is no bug
                stream.reconfigure(errors="replace")
        try:
            return super().invoke(ctx)
        except (click.exceptions.Exit, click.ClickException):
            raise
        except EnergysimError as error:
            _say_error(_message(error))
            ctx.exit(error.exit_code)
        except (KeyboardInterrupt, click.Abort) as stop:
            _say_interrupted(stop)
            ctx.exit(EXIT_INTERRUPTED)
        except BrokenPipeError:
            _drop_stdout()
            ctx.exit(0)
        except OSError as error:  # such as a full disk
            where = f"{error.filename}: " if error.filename else ""
            _say_error(f"{where}{error.strerror or error}")
            ctx.exit(EnergysimError.exit_code)
        except Exception as error:  # noqa: BLE001 - whatever is left is a bug of ours
            if os.environ.get(DEBUG_VARIABLE, "") not in ("", "0"):
                click.echo(traceback.format_exc(), err=True, nl=False)
            _say_error(
                f"unexpected {type(error).__name__}: {error}\n"
                "  This is a bug in energysim: please report it with your command and its files.\n"
                f"  {DEBUG_VARIABLE}=1 shows where it happened."
            )
            ctx.exit(EXIT_BUG)


def _say_error(text: str) -> None:
    click.echo(f"Error: {text}", err=True)


def _say_interrupted(stop: BaseException) -> None:
    """Say what was done, with what the layers cost that were finished."""
    from energysim.units import si

    for row in getattr(stop, "done", ()):
        click.echo(f"  {row.layer}: {si(row.energy_pj / 1e6)} uJ, {row.cycles:,} cycles", err=True)
    done = f" {stop}" if isinstance(stop, KeyboardInterrupt) and stop.args else ""
    click.echo(f"Interrupted:{done or ' nothing was written.'}", err=True)


def _drop_stdout() -> None:
    """Send what is left in the buffer nowhere: the reader of our output has gone."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, sys.stdout.fileno())
    os.close(nowhere)


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="energysim", message="%(prog)s %(version)s")
def main() -> None:
    """What a CNN costs on an embedded accelerator: energy, memory traffic and time per layer.

    \b
    Example:
      energysim list nets
      energysim run --net vgg16_ps --hw edge_tpu

    \b
    Exit status: 0 done, 1 a bug, 2 wrong usage or input, 3 a layer does not fit
    or training came to nothing, 130 interrupted.

    \b
    Tab completion, for bash (zsh and fish alike):
      eval "$(_ENERGYSIM_COMPLETE=bash_source energysim)"
    """  # noqa: D301 - click's mark is a backspace
