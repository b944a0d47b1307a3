import json
import os
import subprocess
import sys
from pathlib import Path
from typing import IO

import pytest

from licht import __version__
from licht.cli import main as command
from licht.core.errors import LichtError
from tests.cli.conftest import Licht


def test_the_version(licht: Licht) -> None:
    outcome = licht("--version")
    assert (outcome.code, outcome.out, outcome.err) == (0, f"licht {__version__}\n", "")


@pytest.mark.parametrize("arguments", [("--help",), ("-h",), ("generate", "--help"), ("generate", "-h")])
def test_help_is_printed_and_is_no_error(licht: Licht, arguments: tuple[str, ...]) -> None:
    outcome = licht(*arguments)
    assert (outcome.code, outcome.err) == (0, "")
    assert "Usage: licht" in outcome.out


def test_without_arguments_help_is_printed_and_nothing_was_done(licht: Licht) -> None:
    outcome = licht()
    assert (outcome.code, outcome.err) == (2, "")
    assert "Usage: licht" in outcome.out


@pytest.mark.parametrize(
    ("arguments", "message", "field"),
    [
        (("draw",), "No such command 'draw'; see licht --help", None),
        (("--verbose",), "No such option: --verbose", None),
        (("generate",), "there is no prompt; give one, or name a file with --prompt-file", "prompt"),
        (("verify", "x", "y"), "Got unexpected extra argument(s) (y); see licht verify --help", None),
        (("generate", "x", "--sede", "1"), "No such option: --sede (Possible options: ", None),
        (("generate", "x", "--seed"), "Option '--seed' requires an argument; see licht", None),
        (("generate", "x", "--seed", "one"), "Invalid value for '--seed': Input should be a valid integer", "seed"),
        (("generate", "x", "--steps", "4.5"), "Invalid value for '--steps': Input should be a valid integer", "steps"),
        (("generate", "x", "--guidance", "much"), "Invalid value for '--guidance': ", "guidance"),
        (("generate", "x", "-n", ""), "Invalid value for '--num'", "num"),
        (("generate", "x", "--num", "1e3"), "Invalid value for '--num'", "num"),
    ],
)
def test_misuse_is_one_line(licht: Licht, arguments: tuple[str, ...], message: str, field: str | None) -> None:
    outcome = licht(*arguments)
    assert (outcome.code, outcome.out) == (2, "")
    assert message in outcome.error
    outcome = licht(*arguments[:1], "--json", *arguments[1:])
    if arguments[0] == "generate":
        assert outcome.code == 2
        said = json.loads(outcome.out)
        assert said == {"error": {"code": "invalid_request", "message": outcome.error, "field": field}}


@pytest.mark.parametrize(
    ("error", "code"), [(LichtError("it broke", field="x"), 1), (LichtError("it\nbroke \x1b[31m"), 1)]
)
def test_an_error_is_one_line_and_with_json_an_object(
    licht: Licht, monkeypatch: pytest.MonkeyPatch, error: LichtError, code: int
) -> None:
    def fail(**options: object) -> None:
        raise error

    monkeypatch.setattr(command, "app", fail)
    outcome = licht("generate", "x")
    assert (outcome.code, outcome.out, outcome.error) == (code, "", error.message)
    outcome = licht("generate", "x", "--json")
    assert json.loads(outcome.out) == {"error": {"code": "error", "message": error.message, "field": error.field}}
    outcome = licht("generate", "--", "--json")  # a prompt, not an option
    assert (outcome.out, outcome.error) == ("", error.message)


def test_a_defect_keeps_its_traceback(licht: Licht, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(**options: object) -> None:
        raise ZeroDivisionError("a defect")

    monkeypatch.setattr(command, "app", fail)
    with pytest.raises(ZeroDivisionError, match="a defect"):
        licht("generate", "x")


def test_an_interrupt_is_one_line_and_its_own_code(licht: Licht, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*arguments: object, **options: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("licht.load", interrupt)
    outcome = licht("generate", "x")
    assert (outcome.code, outcome.out, outcome.err) == (130, "", "interrupted\n")
    outcome = licht("generate", "x", "--json")
    assert outcome.code == 130
    assert json.loads(outcome.out) == {"error": {"code": "interrupted", "message": "interrupted", "field": None}}
    monkeypatch.setattr(command, "app", interrupt)
    assert licht("generate", "x").code == 130


def test_main_exits_with_the_code(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    for arguments, code in ((["--version"], 0), (["generate"], 2)):
        monkeypatch.setattr(sys, "argv", ["licht", *arguments])
        with pytest.raises(SystemExit) as caught:
            command.main()
        assert caught.value.code == code
    assert capsys.readouterr().err.count("\n") == 1


PROGRAM = [sys.executable, "-c", "from licht.cli.main import main; main()"]


def ended(command: list[str], stdout: IO[str] | int | None) -> subprocess.CompletedProcess[str]:
    """How a program ends whose output is buffered, as it is by default."""
    settings = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    return subprocess.run(command, env=settings, stdout=stdout, stderr=subprocess.PIPE, text=True, check=False)


def test_help_needs_no_torch() -> None:
    watch = "import sys, licht.cli.main as m; code = m.run(['--help']); print(sorted(sys.modules), file=sys.stderr)"
    done = subprocess.run([sys.executable, "-c", watch], capture_output=True, text=True, check=True)
    assert "Usage: licht" in done.stdout
    assert "'licht.cli.generate'" in done.stderr
    for heavy in ("torch", "numpy", "PIL", "transformers", "diffusers", "safetensors"):
        assert f"'{heavy}'" not in done.stderr


@pytest.mark.parametrize("arguments", [["--version"], ["generate", "x", "--steps", "zz", "--json"]])
def test_a_full_or_closed_stdout_is_no_traceback(arguments: list[str]) -> None:
    code = 2 if "--json" in arguments else 0
    with Path("/dev/full").open("w") as full:
        done = ended([*PROGRAM, *arguments], full)
    lines = done.stderr.splitlines()
    assert done.returncode != 0
    assert lines
    assert all(line.startswith("error: ") for line in lines)
    reading, writing = os.pipe()
    os.close(reading)
    done = ended([*PROGRAM, *arguments], writing)
    os.close(writing)
    assert done.returncode in (1, code)
    assert "Traceback" not in done.stderr
    assert "Exception" not in done.stderr
    done = ended(["/bin/sh", "-c", '"$@" >&-', "sh", *PROGRAM, *arguments], None)
    assert done.returncode == code
    assert "Traceback" not in done.stderr
