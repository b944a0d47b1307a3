"""`licht world`: look at the rendered world that the built-in family is trained on."""

from pathlib import Path
from typing import Annotated

import typer

world = typer.Typer(help="The rendered world: ground truth of training and evaluation.", no_args_is_help=True)


@world.callback()
def _root() -> None:
    """Keeps `sheet` a verb of its own while it is the only one."""


@world.command()
def sheet(
    output: Annotated[Path, typer.Option("-o", "--output", help="File to write.")] = Path("world.png"),
    kind: Annotated[str, typer.Option(help="mixed, a kind of scene, edit/KIND or task/KIND.")] = "mixed",
    count: Annotated[int, typer.Option(min=1, max=400, help="Number of cells.")] = 24,
    seed: Annotated[int, typer.Option(help="Seed of the first scene.")] = 0,
    size: Annotated[int, typer.Option(help="Side of each picture in pixels, a multiple of 16.")] = 128,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a file that exists.")] = False,
) -> None:
    """Draw a contact sheet: pictures of the world with the words that belong to them."""
    from licht.safety.policy import check_output
    from licht.world.sheet import write_sheet

    check_output(output, overwrite)
    write_sheet(output, kind, count, seed, size)
    typer.echo(str(output))
