"""`licht batch`: a file of jobs, one a line; goes on where it was stopped."""

from pathlib import Path
from typing import Annotated

import typer

from licht.cli import options as o
from licht.cli.runner import Ordered, Setting, run_jobs, tell_outcome


def batch(
    jobs: Annotated[Path, typer.Argument(help='Jobs, one JSON object a line: {"prompt": "...", "seed": 1}.')],
    output: Annotated[
        Path | None,
        typer.Option(
            "-o", "--output", metavar="DIR", help="Folder for the pictures (default: JOBS without its suffix)."
        ),
    ] = None,
    results: Annotated[
        Path | None, typer.Option(help="Where each job's result is written (default: JOBS with .results.jsonl).")
    ] = None,
    picture_format: Annotated[str, typer.Option("--format", help="png, jpg or webp.")] = "png",
    model: o.ModelName = "nano",
    variant: o.VariantName = None,
    device: o.Device = "auto",
    dtype: o.Dtype = "auto",
    quant: o.Quant = "none",
    ignore_plan: o.IgnorePlan = False,
    vae: o.Vae = None,
    text_encoder: o.TextEncoder = None,
    cache: o.CacheFolder = None,
    finish: o.FinishName = "none",
    keep_prompt: o.KeepPrompt = False,
    strict_length: o.StrictLength = False,
    policy: o.PolicyName = "default",
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace files that exist.")] = False,
    as_json: o.AsJson = False,
) -> None:
    """Draw every job in JOBS. Run it again after a stop or a crash: what is drawn is not drawn twice.

    Exits with 1 if some jobs failed, with 2 if all did; the others are drawn all the same.
    """
    ordered = read_jobs(jobs)
    setting = Setting(
        base=jobs.parent,
        folder=output or jobs.with_suffix(""),
        results=results or jobs.with_suffix(".results.jsonl"),
        suffix=suffix_of(picture_format),
        delivery=o.delivery_of(finish, keep_prompt, strict_length),
        overwrite=overwrite,
    )
    opening = o.Opening(model, variant, device, dtype, quant, ignore_plan, policy, vae, text_encoder, cache)
    outcome = run_jobs(ordered, setting, opening)
    tell_outcome(outcome, setting, as_json)
    if outcome.exit_code:
        raise typer.Exit(outcome.exit_code)


def suffix_of(picture_format: str) -> str:
    """The suffix of a format. Raises `InvalidOutput`."""
    from licht.safety.policy import format_of

    suffix = f".{picture_format.lower().removeprefix('.')}"
    format_of(Path(f"picture{suffix}"))
    return suffix


def read_jobs(path: Path) -> list[Ordered]:
    """The jobs of a file, those with a mistake too; empty lines are passed over. Raises `InvalidRequest`."""
    from licht.core.errors import InvalidRequest, LichtError
    from licht.core.jobs import Job

    try:
        text = path.read_bytes().decode("utf-8")
    except OSError as error:
        raise InvalidRequest(f"{path} cannot be read ({error.strerror}); check the path", field="jobs") from error
    except ValueError as error:
        raise InvalidRequest(f"{path} is no text in UTF-8; save it as such", field="jobs") from error
    ordered: list[Ordered] = []
    names: dict[str, int] = {}
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        try:
            job = Job.from_line(line)
            for stem in job.stems(number):
                if stem in names:
                    raise InvalidRequest(f"name: line {names[stem]} is called {stem} too; choose another", field="name")
            names |= dict.fromkeys(job.stems(number), number)
            ordered.append(Ordered(number, line.strip(), job))
        except LichtError as error:
            ordered.append(Ordered(number, line.strip(), error=error))
    if not ordered:
        raise InvalidRequest(f"{path} holds no job; write one JSON object a line", field="jobs")
    return ordered
