"""`licht series`: a storyboard, frame after frame, and a contact sheet at the end."""

import json
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from licht.cli import options as o
from licht.cli.batch import suffix_of
from licht.cli.runner import Ordered, Setting, run_jobs, tell_outcome

if TYPE_CHECKING:
    from licht.core.series import Story


def series(
    story: Annotated[Path, typer.Argument(help="The storyboard (TOML): characters, style, frames.")],
    output: Annotated[
        Path | None,
        typer.Option(
            "-o", "--output", metavar="DIR", help="Folder for the frames (default: STORY without its suffix)."
        ),
    ] = None,
    picture_format: Annotated[str, typer.Option("--format", help="png, jpg or webp.")] = "png",
    model: o.ModelName = "nano",
    variant: o.VariantName = None,
    size: o.SizeText = None,
    aspect: o.Aspect = None,
    megapixels: o.Megapixels = None,
    steps: o.Steps = None,
    guidance: o.Guidance = None,
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
    """Draw every frame of STORY, then a contact sheet. Run it again after a stop: what is drawn is not drawn twice.

    Without a seed in the story the frames begin at seed 0, so that the same story gives the same pictures.
    """
    from licht.core.sizes import parse_size

    told = read_story(story)
    if size is not None:
        parse_size(size)
    setting = Setting(
        base=story.parent,
        folder=output or story.with_suffix(""),
        results=story.with_suffix(".results.jsonl"),
        suffix=suffix_of(picture_format),
        delivery=o.delivery_of(finish, keep_prompt, strict_length),
        overwrite=overwrite,
        counted="frame",
    )
    opening = o.Opening(model, variant, device, dtype, quant, ignore_plan, policy, vae, text_encoder, cache)
    # nothing is drawn with options that are wrong for every frame
    common = {"size": size, "aspect": aspect, "megapixels": megapixels, "steps": steps, "guidance": guidance}
    outcome = run_jobs(_ordered(told, common), setting, opening)
    sheet = None if outcome.failed else str(_write_sheet(told, setting, policy))
    tell_outcome(outcome, setting, as_json, {"sheet": sheet})
    if sheet is not None and not as_json:
        typer.echo(sheet)
    if outcome.exit_code:
        raise typer.Exit(outcome.exit_code)


def read_story(path: Path) -> "Story":
    """The storyboard in a file. Raises `InvalidRequest`, with the line or the field that is wrong."""
    from licht.core.errors import InvalidRequest
    from licht.core.series import Story

    try:
        with path.open("rb") as file:
            data = tomllib.load(file)
    except OSError as error:
        raise InvalidRequest(f"{path} cannot be read ({error.strerror}); check the path", field="story") from error
    except ValueError as error:  # TOMLDecodeError, and bytes that are no text
        raise InvalidRequest(f"{path} is not TOML: {error}; correct it there", field="story") from error
    return Story.from_dict(data)


def _ordered(story: "Story", common: Mapping[str, object]) -> list[Ordered]:
    """The frames as jobs, numbered from 1."""
    from licht.core.jobs import Job

    jobs = []
    for number in range(1, len(story.frames) + 1):
        shot = story.shot(number, story.seed or 0)
        images = [
            {"path": path, "role": character.role, "strength": character.strength} for path, character in shot.images
        ]
        said = {"prompt": shot.prompt, "name": f"frame-{number:02}", "images": images, "seed": shot.seed}
        line = json.dumps(said | {name: value for name, value in common.items() if value is not None})
        jobs.append(Ordered(number, line, Job.from_line(line)))
    return jobs


def _write_sheet(story: "Story", setting: Setting, policy_name: str) -> Path:
    """The contact sheet, marked and signed like any other picture; it is made anew each time."""
    from licht.files.sheet import contact_sheet
    from licht.safety.policy import format_of, parse_policy, release, write
    from licht.safety.provenance import Ingredient, Making

    paths = [setting.folder / f"frame-{number:02}{setting.suffix}" for number in range(1, len(story.frames) + 1)]
    target = setting.folder / f"sheet{setting.suffix}"
    picture = contact_sheet([(path, frame.prompt) for path, frame in zip(paths, story.frames, strict=True)])
    media_type = f"image/{format_of(target).lower()}"
    making = Making(ingredients=tuple(Ingredient(path.read_bytes(), media_type) for path in paths), edits=False)
    write(release(picture, parse_policy(policy_name), format_of(target), making), target, overwrite=True)
    return target
