"""`licht prompt`: the structured prompt's schema, and what a model reads of a prompt."""

import json
from pathlib import Path
from typing import Annotated

import typer

prompt = typer.Typer(help="Structured prompts: their schema, and what a model reads of them.", no_args_is_help=True)


@prompt.command()
def schema() -> None:
    """Print the JSON schema of the structured prompt."""
    from licht.core.prompt import json_schema

    typer.echo(json.dumps(json_schema(), indent=2))


@prompt.command()
def show(
    text: Annotated[str | None, typer.Argument(help="A prompt, as text or JSON.")] = None,
    prompt_file: Annotated[Path | None, typer.Option("--prompt-file", help="Read the prompt from a file.")] = None,
    style: Annotated[str, typer.Option(help="What the model prefers: prose or json.")] = "prose",
    references: Annotated[int, typer.Option(min=0, max=10, help="How many references there would be.")] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="Print a JSON report.")] = False,
) -> None:
    """Print what a model would read of a prompt. Nothing is drawn."""
    from licht.cli.generate import read_prompts
    from licht.core.errors import InvalidRequest
    from licht.core.prompt import PromptStyle, settle_prompt
    from licht.core.request import Picture, Reference

    if style not in tuple(PromptStyle):
        raise InvalidRequest(f"style {style!r} is unknown; choose one of {', '.join(PromptStyle)}", field="style")
    blank = Reference(Picture(1, 1, bytes(3)))
    read = read_prompts([text] if text is not None else [], prompt_file)[-1]
    settled = settle_prompt(read, [blank] * references, PromptStyle(style))
    if as_json:
        typer.echo(json.dumps({"prompt": settled.text, "warnings": settled.warnings}))
        return
    for warning in settled.warnings:
        typer.echo(f"warning: {warning}", err=True)
    typer.echo(settled.text)
