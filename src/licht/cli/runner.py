"""Many jobs, one after another, with a journal: what `licht batch` and `licht series` have in common."""

import hashlib
import json
import os
import re
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import typer

from licht.cli import options as o
from licht.core.errors import LichtError, OutputFailed, OutputStopped

_HALF_WRITTEN: Final = re.compile(r"\.[0-9a-f]{16}\.part")

if TYPE_CHECKING:
    from licht.cli.progress import ProgressBar
    from licht.core.jobs import Job
    from licht.core.request import ImageRequest
    from licht.files.journal import Journal
    from licht.generate import Delivery, Model


@dataclass(frozen=True, slots=True)
class Ordered:
    """A job of a list, or what is wrong with its line. `text` is what makes it the same job in another run."""

    line: int
    text: str
    job: "Job | None" = None
    error: LichtError | None = None
    manner: str = ""

    @property
    def key(self) -> str:
        """Names the job in the journal: another line, another text, or other options are another job."""
        said = f"{self.text}\n{self.manner}"
        return f"{self.line}-{hashlib.sha256(said.encode()).hexdigest()[:16]}"


@dataclass(frozen=True, slots=True)
class Setting:
    """Where jobs come from and go to. `base` is the folder that their paths are relative to."""

    base: Path
    folder: Path
    results: Path
    suffix: str
    delivery: "Delivery"
    overwrite: bool = False
    counted: str = "line"
    """What the numbers of the jobs count."""

    @property
    def place(self) -> str:
        """Where the pictures lie, seen from the results: the same wherever both are moved."""
        return os.path.relpath(self.folder, self.results.parent)


@dataclass(frozen=True, slots=True)
class Outcome:
    """How many jobs were drawn now, had been drawn before, and failed."""

    drawn: int
    before: int
    failed: int

    @property
    def exit_code(self) -> int:
        """0 if all is well, 1 if some jobs failed, 2 if all did."""
        if not self.failed:
            return 0
        return 1 if self.drawn or self.before else 2


def run_jobs(jobs: Sequence[Ordered], setting: Setting, opening: "o.Opening") -> Outcome:
    """Draw what the journal does not know as drawn. Raises `OutputFailed` if the disk fails; nothing drawn is lost."""
    from licht.cli.progress import ProgressBar
    from licht.files.journal import Journal

    jobs = [replace(one, manner=_manner(setting, opening)) for one in jobs]
    _make(setting.folder)
    with Journal(setting.results) as journal:
        waiting = [one for one in jobs if not _is_done(one, journal, setting.folder)]
        _sweep(setting.folder)
        good = [one for one in waiting if one.job is not None]
        model = opening.open() if good else None
        failed = 0
        with ProgressBar(1, jobs=len(waiting)) as bar:
            for number, one in enumerate(waiting):
                try:
                    record = _drawn(one, model, journal, setting, bar)
                    journal.end(record)
                except OutputFailed as error:
                    if len(jobs) - len(waiting) + number - failed > 0:
                        raise OutputStopped(error.message, field=error.field) from error
                    raise
                bar.job_done()
                for warning in record.get("warnings", ()):
                    bar.say(f"{setting.counted} {one.line}: warning: {warning}")
                if "error" in record:
                    failed += 1
                    bar.say(f"{setting.counted} {one.line}: {record['error']['message']}")
    return Outcome(len(waiting) - failed, len(jobs) - len(waiting), failed)


def _manner(setting: Setting, opening: "o.Opening") -> str:
    """The options that change what a job's pictures are, in words that are equal only if they are."""
    of_model = (opening.model, opening.variant, opening.dtype, opening.quant, opening.vae, opening.text_encoder)
    delivery = setting.delivery
    of_files = (opening.policy, setting.place, setting.suffix, delivery.finish.value, delivery.keep_prompt)
    return repr((*map(str, of_model), *of_files))


def _make(folder: Path) -> None:
    from licht.core.errors import InvalidOutput

    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InvalidOutput(
            f"{folder} cannot be made ({error.strerror}); choose another place", field="output"
        ) from error


def _is_done(one: Ordered, journal: "Journal", folder: Path) -> bool:
    """Whether the job was drawn before and its pictures are still there."""
    record = journal.ready.get(one.key)
    return record is not None and all((folder / image["path"]).is_file() for image in record["images"])


def _sweep(folder: Path) -> None:
    """Remove what a killed run has left half written; finished pictures never have such names."""
    for path in folder.glob(".*.part"):
        if _HALF_WRITTEN.fullmatch(path.name):
            with suppress(OSError):
                path.unlink()


def _drawn(
    one: Ordered, model: "Model | None", journal: "Journal", setting: Setting, bar: "ProgressBar"
) -> dict[str, Any]:
    """The record of one job, drawn or failed."""
    record: dict[str, Any] = {"line": one.line, "key": one.key, "status": "failed"}
    if one.job is not None and one.job.name is not None:
        record["name"] = one.job.name
    begun, was_begun = time.perf_counter(), one.key in journal.begun
    try:
        if one.job is None or model is None:
            raise one.error or LichtError("the job cannot be read")
        journal.begin(one.key)
        record |= {"folder": setting.place, **_pictures(one, model, setting, was_begun, bar)}
        record["seconds"] = round(time.perf_counter() - begun, 3)
        record["status"] = "ready"
    except OutputFailed:
        raise
    except LichtError as error:
        record["error"] = {"code": error.code, "message": error.message, "field": error.field}
    return record


def _pictures(one: Ordered, model: "Model", setting: Setting, was_begun: bool, bar: "ProgressBar") -> dict[str, Any]:
    from licht.core.request import Preview, Progress
    from licht.safety.policy import check_output, format_of

    assert one.job is not None  # noqa: S101 - the caller has looked
    delivery = setting.delivery
    if one.job.finish is not None:
        from licht.finish import parse_finish

        delivery = replace(delivery, finish=parse_finish(one.job.finish))
    request = request_of(one.job, setting.base, model)
    paths = [setting.folder / f"{stem}{setting.suffix}" for stem in one.job.stems(one.line)]
    # what a killed run of this very job has left is its own
    overwrite = setting.overwrite or was_begun
    for path in paths:
        check_output(path, overwrite)
    images: list[dict[str, Any]] = []
    warnings: list[str] = []
    for event in model.stream(request, format_of(paths[0]), delivery):
        if isinstance(event, Progress):
            bar.show(event)
        elif not isinstance(event, Preview):
            path = event.save(paths[len(images)], overwrite)
            images.append({"path": path.name, "seed": event.seed, "width": event.width, "height": event.height})
            warnings += [warning for warning in event.warnings if warning not in warnings]
    return {"images": images, "warnings": warnings}


def request_of(job: "Job", base: Path, model: "Model") -> "ImageRequest":
    """The request that a job stands for; its files are read now. Raises `InvalidRequest` and its kin."""
    from licht.core.request import ImageRequest, LoraUse, parse_margins
    from licht.generate import mask_from, references_from, seeds_from, start_from

    images = job.references
    return ImageRequest(
        prompt=job.prompt_text,
        seeds=seeds_from(job.seed, job.num),
        references=references_from(
            [base / one.path for one in images],
            roles=[one.role for one in images],
            strengths=[one.strength for one in images],
        ),
        size=o.size_of(job.size, job.aspect, job.megapixels, model.engine.variant),
        steps=job.steps,
        guidance=job.guidance,
        native_only=job.native_only,
        loras=tuple(LoraUse(base / one.path, one.strength) for one in job.adapters),
        start=start_from(
            base / job.start if job.start is not None else None,
            job.strength,
            masked=job.mask is not None or job.extend is not None,
        ),
        mask=mask_from(base / job.mask) if job.mask is not None else None,
        extend=parse_margins(job.extend) if job.extend is not None else None,
    )


def tell_outcome(outcome: Outcome, setting: Setting, as_json: bool, more: Mapping[str, Any] | None = None) -> None:
    """Say how it went: the results file on stdout, the counts on stderr, or both as JSON."""
    if as_json:
        counts = {"drawn": outcome.drawn, "drawn_before": outcome.before, "failed": outcome.failed}
        typer.echo(
            json.dumps({**counts, "results": str(setting.results), "folder": str(setting.folder), **(more or {})})
        )
        return
    said = [f"{outcome.drawn} drawn"]
    said += [f"{outcome.before} drawn before"] if outcome.before else []
    said += [f"{outcome.failed} failed"] if outcome.failed else []
    typer.echo(", ".join(said), err=True)
    typer.echo(os.fsencode(setting.results))
