"""`licht export`: the newest averages of a training run as a model folder."""

from pathlib import Path
from typing import Annotated

import typer


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
        Path | None, typer.Option(help="A model folder; parts that are equal to its own become links to them.")
    ] = None,
) -> None:
    """Write the model that RUN has trained to the folder DST: an autoencoder as vae/, anything else whole."""
    import json

    from licht.checkpoint.catalog import built_in
    from licht.core.errors import InvalidSettings
    from licht.training.card import Figures
    from licht.training.export import Release, export_run

    read = []
    for path in figures or []:
        try:
            data = json.loads(path.read_text("utf-8"))
            rows = {name: (row["value"], row["low"], row["high"]) for name, row in data["rows"].items()}
            read.append(Figures(data["suite"], data["n"], rows))
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise InvalidSettings(
                f"{path} is not what `licht eval --json` prints ({error!r}); write it again", field="figures"
            ) from error
    for path in export_run(run, target, built_in(), Release(steps, guidance, tuple(read), share)):
        typer.echo(f"{path}  {path.stat().st_size / 1e6:,.2f} MB")
