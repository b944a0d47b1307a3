"""`licht generate`: prompts, references, a picture to begin with; one picture or several."""

from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from licht.cli import options as o


def generate(
    prompts: Annotated[list[str] | None, typer.Argument(metavar="[PROMPT]...", help="What to draw.")] = None,
    prompt_file: Annotated[
        Path | None,
        typer.Option("--prompt-file", help="Read the prompt from a file: text, or a structured prompt (JSON)."),
    ] = None,
    images: Annotated[
        list[str] | None,
        typer.Option(
            "-i",
            "--image",
            metavar="FILE[:role=ROLE,strength=S]",
            help="A reference picture; repeat for several, in order. "
            "Roles: subject, style, background, lighting, pose, palette, depth, edges.",
        ),
    ] = None,
    start: Annotated[Path | None, typer.Option(help="A picture to begin with instead of noise.")] = None,
    strength: Annotated[
        float | None, typer.Option(help="How much of --start is drawn anew: above 0, at most 1 (default: 0.75).")
    ] = None,
    mask: Annotated[Path | None, typer.Option(help="Where --start may change: white changes, black stays.")] = None,
    extend: Annotated[
        str | None, typer.Option(metavar="SIDE=PX,...", help="Pixels to add around --start: left=256,top=64.")
    ] = None,
    model: o.ModelName = "nano",
    variant: o.VariantName = None,
    size: o.SizeText = None,
    aspect: o.Aspect = None,
    megapixels: o.Megapixels = None,
    seed: Annotated[int | None, typer.Option(help="Seed of the first picture (default: random).")] = None,
    steps: o.Steps = None,
    guidance: o.Guidance = None,
    num: Annotated[int, typer.Option("--num", "-n", help="Pictures for each prompt, with consecutive seeds.")] = 1,
    native_only: o.NativeOnly = False,
    device: o.Device = "auto",
    dtype: o.Dtype = "auto",
    quant: o.Quant = "none",
    ignore_plan: o.IgnorePlan = False,
    vae: o.Vae = None,
    text_encoder: o.TextEncoder = None,
    cache: o.CacheFolder = None,
    lora: o.Loras = None,
    partial_loras: o.PartialLoras = False,
    finish: o.FinishName = "none",
    upsample: Annotated[
        bool, typer.Option("--upsample", help="Let a language model write the prompt out first.")
    ] = False,
    upsample_with: Annotated[
        str | None,
        typer.Option(metavar="URL|FOLDER", help="A chat endpoint or a dev model (default: the model's own)."),
    ] = None,
    upsample_model: Annotated[str, typer.Option(help="The endpoint's name of the language model.")] = "default",
    keep_prompt: o.KeepPrompt = False,
    strict_length: o.StrictLength = False,
    preview: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Write a small picture of every step into a folder.")
    ] = None,
    policy: o.PolicyName = "default",
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="File to write: .png, .jpg or .webp (default: a free name).")
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace files that exist.")] = False,
    as_json: o.AsJson = False,
) -> None:
    """Draw each PROMPT, with or without pictures to draw on; prints the path of each picture on stdout."""
    from licht.cli.drawing import Plan, draw, output_paths, preview_folder, report_of, tell, with_plan_shown
    from licht.core.request import ImageRequest, parse_margins
    from licht.generate import lora_from, mask_from, seeds_from, start_from

    texts = read_prompts(prompts or [], prompt_file)
    delivery = o.delivery_of(finish, keep_prompt, strict_length)
    whole = ImageRequest(
        prompt="",
        seeds=seeds_from(seed, num),
        references=tuple(o.reference_of(text, n) for n, text in enumerate(images or [], start=1)),
        steps=steps,
        guidance=guidance,
        native_only=native_only,
        loras=tuple(lora_from(text, partial_loras) for text in lora or []),
        start=start_from(start, strength, masked=mask is not None or extend is not None),
        mask=mask_from(mask) if mask is not None else None,
        extend=parse_margins(extend) if extend is not None else None,
        previews=preview is not None,
    )
    opening = o.Opening(model, variant, device, dtype, quant, ignore_plan, policy, vae, text_encoder, cache)
    paths = output_paths(output, whole.seeds * len(texts), ".png", overwrite)
    loaded = opening.open()
    whole = replace(whole, size=o.size_of(size, aspect, megapixels, loaded.engine.variant))
    requests = [replace(whole, prompt=text) for text in texts]
    upsampled = loaded.upsample(requests, upsample_with, upsample_model) if upsample else []
    if upsampled:
        requests = [replace(whole, prompt=one.prompt) for one in upsampled]
    plan = Plan(requests, paths, delivery, overwrite, preview_folder(preview))
    drawn, stages_s = with_plan_shown(lambda: draw(loaded, plan))
    report = report_of(loaded, drawn, stages_s)
    report["prompts"] = [loaded.check(request).text for request in requests]
    for one in upsampled:
        report["warnings"] += one.warnings
        report["notes"] += [f"prompt used: {one.prompt}"] if one.prompt != one.asked else []
    tell(report, as_json)


def read_prompts(given: list[str], file: Path | None) -> list[str]:
    """The prompts of the command line and of the file, which counts last. Raises `InvalidPrompt`, `InvalidRequest`."""
    from licht.core.errors import InvalidPrompt, InvalidRequest

    texts = list(given)
    if file is not None:
        try:
            texts.append(file.read_text(encoding="utf-8").strip())
        except OSError as error:
            raise InvalidPrompt(
                f"{file} cannot be read ({error.strerror}); check the path", field="prompt_file"
            ) from error
        except ValueError as error:
            raise InvalidPrompt(f"{file} is no text in UTF-8; save it as such", field="prompt_file") from error
        if file.suffix.lower() == ".json":
            from licht.core.prompt import StructuredPrompt

            StructuredPrompt.from_json(texts[-1])
    if not texts:
        raise InvalidRequest("there is no prompt; give one, or name a file with --prompt-file", field="prompt")
    return texts
