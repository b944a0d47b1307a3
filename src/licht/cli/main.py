"""The command `licht`: collects the verbs and turns errors into one line and an exit code."""

import errno
import json
import os
import sys
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Annotated

import typer

from licht import __version__
from licht.cli.again import again
from licht.cli.batch import batch
from licht.cli.convert import convert
from licht.cli.decode import decode
from licht.cli.doctor import doctor
from licht.cli.encode import encode
from licht.cli.eval import evaluate
from licht.cli.export import export
from licht.cli.generate import generate
from licht.cli.inspect import inspect
from licht.cli.keys import keys
from licht.cli.mcp import mcp
from licht.cli.models import models
from licht.cli.plan import plan
from licht.cli.prompt import prompt
from licht.cli.provenance import provenance
from licht.cli.screen import screen
from licht.cli.series import series
from licht.cli.serve import serve
from licht.cli.settings import preferred
from licht.cli.train import train
from licht.cli.usage import usage
from licht.cli.verify import verify
from licht.cli.world import world
from licht.core.errors import InvalidRequest, LichtError

app = typer.Typer(
    name="licht",
    help="Draw and edit pictures with FLUX.2 models, on your own machine.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command()(generate)
app.command()(batch)
app.command()(series)
app.command()(inspect)
app.command()(again)
app.command()(encode)
app.command()(decode)
app.add_typer(prompt, name="prompt")
app.add_typer(models, name="models")
app.command()(doctor)
app.command()(train)
app.add_typer(world, name="world")
app.command()(export)
app.command(name="eval")(evaluate)
app.command()(convert)
app.command()(plan)
app.command()(serve)
app.command()(mcp)
app.add_typer(keys, name="keys")
app.command()(usage)
app.command()(verify)
app.command()(screen)
app.add_typer(provenance, name="provenance")


def _version(show: bool) -> None:
    if show:
        typer.echo(f"licht {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Options that come before the verb."""
    del version


def main() -> None:
    """Run the command line: 0 on success, 2 for bad input, 1 for other failures, 130 when interrupted."""
    sys.exit(run(sys.argv[1:]))


def run(arguments: Sequence[str]) -> int:
    """Run one command and return its exit code. An error is one line on stderr, and with `--json` an object on stdout.

    What is not a `LichtError`, a mistake in the options or a failing system call is a defect and keeps its traceback.
    """
    as_json = "--json" in arguments[: arguments.index("--") if "--" in arguments else None]
    try:
        ending = _ending_of(arguments)
        if ending.message:
            typer.echo(f"{ending.mark}{ending.message}", err=True)
        if ending.message and as_json:
            said = {"code": ending.code, "message": ending.message, "field": ending.field}
            typer.echo(json.dumps({"error": said}))
    except OSError as error:
        return _without_output(error)
    return ending.exit_code


@dataclass(frozen=True, slots=True)
class _Ending:
    """How a command ended, for people and for programs; without a message it has succeeded, or has said so itself."""

    exit_code: int
    message: str = ""
    code: str = InvalidRequest.code
    field: str | None = None
    mark: str = "error: "


_INTERRUPTED = _Ending(130, "interrupted", "interrupted", mark="")
"""130 is what a shell expects of a program that was stopped with Ctrl-C."""


def _ending_of(arguments: Sequence[str]) -> _Ending:
    try:
        defaults = {"default_map": preferred(app)}
        code = app(args=list(arguments), prog_name="licht", standalone_mode=False, **defaults)
    except LichtError as error:
        return _Ending(error.exit_code, error.message, error.code, error.field)
    except typer.TyperException as error:
        return _misuse(error)
    except KeyboardInterrupt:
        return _INTERRUPTED
    if code == _INTERRUPTED.exit_code:
        return _INTERRUPTED
    return _Ending(code if isinstance(code, int) else 0)


def _misuse(error: typer.TyperException) -> _Ending:
    """A mistake in the options. Without any arguments there is none, and help has been printed."""
    if not error.format_message():
        return _Ending(error.exit_code)
    command = getattr(getattr(error, "ctx", None), "command_path", "licht")
    mistake = InvalidRequest(f"{error.format_message().rstrip('.')}; see {command} --help")
    return _Ending(error.exit_code, mistake.message, field=getattr(getattr(error, "param", None), "name", None))


def _without_output(error: OSError) -> int:
    """End after a system call failed, which is stdout's where nobody reads it or its disk is full."""
    # what stdout still holds must not fail once more at exit
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    if error.errno != errno.EPIPE:
        with suppress(OSError):
            typer.echo(f"error: {LichtError(str(error)).message}", err=True)
    return LichtError.exit_code
