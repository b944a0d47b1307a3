"""`licht doctor`: is this installation sound, and is a model faithful."""

from typing import Annotated

import typer


def doctor(
    golden: Annotated[
        str | None, typer.Option("--golden", help="Compare this model with diffusers, component by component.")
    ] = None,
) -> None:
    """Check the installation."""
    typer.echo(golden)
