"""The command `licht`: collects the verbs and turns errors into one line and an exit code."""

import json
import os
import sys
from collections.abc import Sequence
from typing import Annotated

import typer

from licht import __version__
from licht.cli.doctor import doctor
from licht.cli.generate import generate
from licht.core.errors import InvalidRequest, LichtError

INTERRUPTED = 130
"""What a shell expects of a program that was stopped with Ctrl-C."""

app = typer.Typer(
    name="licht",
    help="Draw and edit pictures with FLUX.2 models, on your own machine.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command()(generate)
app.command()(doctor)


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
        code = app(args=list(arguments), prog_name="licht", standalone_mode=False)
        if code == INTERRUPTED:
            return _fail("interrupted", "interrupted", None, INTERRUPTED, as_json)
        return code if isinstance(code, int) else 0
    except LichtError as error:
        return _fail(f"error: {error.message}", error.code, error.field, error.exit_code, as_json)
    except typer.TyperException as error:
        return _misused(error, as_json)
    except KeyboardInterrupt:
        return _fail("interrupted", "interrupted", None, INTERRUPTED, as_json)
    except OSError as error:
        # stdout itself may be what failed; what it still holds must not fail once more at exit
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return _fail(f"error: {error}", LichtError.code, None, LichtError.exit_code, as_json=False)


def _misused(error: typer.TyperException, as_json: bool) -> int:
    """Mistakes in the options; without any arguments there is no mistake, and help has been printed."""
    if not error.format_message():
        return error.exit_code
    command = getattr(getattr(error, "ctx", None), "command_path", "licht")
    mistake = InvalidRequest(
        f"{error.format_message().rstrip('.')}; see {command} --help",
        field=getattr(getattr(error, "param", None), "name", None),
    )
    return _fail(f"error: {mistake.message}", mistake.code, mistake.field, error.exit_code, as_json)


def _fail(line: str, code: str, field: str | None, exit_code: int, as_json: bool) -> int:
    """Say what went wrong, to people and, where it was asked for, to programs."""
    typer.echo(line, err=True)
    if as_json:
        typer.echo(json.dumps({"error": {"code": code, "message": line.removeprefix("error: "), "field": field}}))
    return exit_code
