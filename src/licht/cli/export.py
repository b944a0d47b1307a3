"""`licht export`: the newest averages of a training run as a model folder."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from licht.training.card import Figures


def export(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="Folder of a training run.")],
    target: Annotated[Path, typer.Argument(metavar="DST", help="The folder to write; it must be new or empty.")],
    steps: Annotated[
        int | None, typer.Option(min=1, max=50, help="Steps that it takes unless asked otherwise.")
    ] = None,
    guidance: Annotated[float | None, typer.Option(min=0, help="Its guidance unless asked otherwise.")] = None,
    figures: Annotated[
        list[Path] | None, typer.Option(help="Output of `licht eval --json` for the card; repeat for several.")
    ] = None,
    share: Annotated[
        Path | None,
        typer.Option(help="A model's name or folder; parts that are equal to its own become links to them."),
    ] = None,
    quant: Annotated[
        str, typer.Option(help="Store the transformer's large matrices so: none, fp8, int8, q4 or nvfp4.")
    ] = "none",
    quant_outside: Annotated[
        str, typer.Option(help="The same for its modulation and embedders, which --quant leaves exact.")
    ] = "none",
    autoencoder: Annotated[
        Path | None,
        typer.Option(
            help="Run, model name or folder of an autoencoder with the same latents, instead of the run's own."
        ),
    ] = None,
) -> None:
    """Write what RUN has trained to the folder DST: a model whole, an autoencoder as vae/, a judge as one file."""
    from licht.checkpoint.assets import built_in
    from licht.evaluation.judge_training import export_judge
    from licht.training.config import Task
    from licht.training.export import Release, export_run, refuse_release
    from licht.training.state import newest_checkpoint, read_recipe

    told = tuple(_figures(path) for path in figures or [])
    release = Release(steps, guidance, told, share, quant, quant_outside, autoencoder)
    task = read_recipe(newest_checkpoint(run)).task
    if task is Task.JUDGE:
        refuse_release(task, release)
        typer.echo(str(export_judge(run, target / "judge.safetensors")))
        return
    for path in export_run(run, target, built_in(), release):
        typer.echo(f"{path}  {path.stat().st_size / 1e6:,.2f} MB")


def _figures(path: Path) -> "Figures":
    """What `licht eval --json` wrote to a file."""
    import json

    from licht.core.errors import InvalidSettings
    from licht.training.card import Figures

    try:
        return Figures.read(json.loads(path.read_text("utf-8")))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InvalidSettings(
            f"{path} is not what `licht eval --json` prints ({error!r}); write it again", field="figures"
        ) from error
