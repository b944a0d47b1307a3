"""`licht again`: draw a picture once more, as its file says it was made, or with changes."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from licht.cli import options as o

if TYPE_CHECKING:
    from licht.core.recipe import Recipe, UsedPicture
    from licht.core.request import LoraUse, Reference


@dataclass(frozen=True, slots=True)
class Found:
    """Files that were used for a picture: by the hashes of what they show, or in the order in which they are needed."""

    folder: Path
    images: tuple[str, ...] = ()
    start: Path | None = None
    mask: Path | None = None
    loras: tuple[str, ...] = ()


def again(
    file: Annotated[Path, typer.Argument(help="A picture that Licht has drawn.")],
    prompt: Annotated[str | None, typer.Option(help="The prompt, if the file has not kept it, or another one.")] = None,
    images: Annotated[
        list[str] | None,
        typer.Option(
            "-i",
            "--image",
            metavar="FILE[:role=ROLE,strength=S]",
            help="The references, in order (default: looked for beside FILE, by what they show).",
        ),
    ] = None,
    start: Annotated[Path | None, typer.Option(help="The picture that it began with (default: looked for).")] = None,
    strength: Annotated[float | None, typer.Option(help="Another strength of the start.")] = None,
    mask: Annotated[Path | None, typer.Option(help="The mask; it has to be named.")] = None,
    lora: o.Loras = None,
    model: Annotated[str | None, typer.Option("--model", "-m", help="Another model's name, folder or file.")] = None,
    variant: o.VariantName = None,
    size: o.SizeText = None,
    seed: Annotated[int | None, typer.Option(help="Another seed.")] = None,
    steps: o.Steps = None,
    guidance: o.Guidance = None,
    num: Annotated[int, typer.Option("--num", "-n", help="Number of pictures, with consecutive seeds.")] = 1,
    device: o.Device = "auto",
    dtype: Annotated[str | None, typer.Option(help="Another number format: auto, float32 or bfloat16.")] = None,
    vae: o.Vae = None,
    text_encoder: o.TextEncoder = None,
    cache: o.CacheFolder = None,
    finish: Annotated[str | None, typer.Option("--finish", help="Another finish: none, phone or film.")] = None,
    keep_prompt: Annotated[
        bool | None, typer.Option("--keep-prompt/--drop-prompt", help="Keep the prompt or not (default: as FILE does).")
    ] = None,
    policy: o.PolicyName = "default",
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="File to write: .png, .jpg or .webp (default: a free name).")
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace files that exist.")] = False,
    as_json: o.AsJson = False,
) -> None:
    """Draw FILE again: the same pixels with the same weights on the same kind of machine. Options change things."""
    from licht.cli.drawing import Plan, draw, output_paths, report_of, tell, with_plan_shown
    from licht.core.errors import InvalidPrompt, InvalidRequest
    from licht.core.request import ImageRequest, Margins
    from licht.core.sizes import Size, parse_size
    from licht.files.reading import open_made
    from licht.generate import mask_from, seeds_from, start_from

    *_, recipe = open_made(file)
    if recipe is None:
        raise InvalidRequest(
            f"{file} does not say how it was made; only files of Licht can be drawn again", field="file"
        )
    text = prompt if prompt is not None else recipe.prompt
    if text is None:
        raise InvalidPrompt(
            f"{file} has not kept its prompt; give it with --prompt, and next time draw with --keep-prompt",
            field="prompt",
        )
    found = Found(file.parent, tuple(images or ()), start, mask, tuple(lora or ()))
    margins = Margins(*recipe.extend) if recipe.extend is not None else None
    whole = Size(recipe.width, recipe.height)
    begun, masked = _start(recipe, found), _mask(recipe, found)
    kept = recipe.start.strength if recipe.start is not None else None
    request = ImageRequest(
        prompt=text,
        seeds=seeds_from(seed if seed is not None else recipe.seed, num),
        references=_references(recipe, found),
        # a start's own size need not be one that can be asked for
        size=parse_size(size) if size is not None else None if recipe.start is not None else whole,
        steps=steps if steps is not None else recipe.steps,
        guidance=guidance if guidance is not None else recipe.guidance,
        loras=_loras(recipe, found),
        start=start_from(begun, strength if strength is not None or begun is None else kept),
        mask=mask_from(masked) if masked is not None else None,
        extend=margins,
    )
    keep = keep_prompt if keep_prompt is not None else recipe.prompt is not None
    plan = Plan(
        [request],
        output_paths(output, request.seeds, file.suffix, overwrite),
        o.delivery_of(finish or recipe.finish, keep, False),
        overwrite,
    )
    opening = o.Opening(
        model or recipe.model,
        variant,
        device,
        dtype or recipe.dtype,
        recipe.quant,
        False,
        policy,
        vae,
        text_encoder,
        cache,
    )
    loaded = opening.open()
    drawn, stages_s = with_plan_shown(lambda: draw(loaded, plan))
    report = report_of(loaded, drawn, stages_s)
    report["warnings"] += _differences(recipe, drawn[0].result.recipe or recipe)
    tell(report, as_json)


def _references(recipe: "Recipe", found: Found) -> "tuple[Reference, ...]":
    """The references: those that were named, else those that lie beside the picture. Raises `InvalidRequest`."""
    from dataclasses import replace

    texts = found.images or tuple(
        str(_looked_for(one, f"image {number}", "-i", found.folder))
        for number, one in enumerate(recipe.references, start=1)
    )
    references = []
    for number, text in enumerate(texts, start=1):
        reference = o.reference_of(text, number)
        if number <= len(recipe.references) and reference.role is None and reference.strength == 1.0:
            used = recipe.references[number - 1]
            reference = replace(reference, role=used.role, strength=used.strength)
        references.append(reference)
    return tuple(references)


def _looked_for(one: "UsedPicture", name: str, option: str, folder: Path) -> Path:
    """The file beside the picture, or here, that shows what was used."""
    from licht.core.errors import InvalidRequest
    from licht.files.reading import find_pictures

    for place in dict.fromkeys((folder, Path())):
        there = find_pictures(place, frozenset({one.sha256}))
        if there:
            return there[one.sha256]
    raise InvalidRequest(f"{name} is not beside the picture; name it with {option}", field="images")


def _start(recipe: "Recipe", found: Found) -> Path | None:
    if found.start is not None or recipe.start is None:
        return found.start
    return _looked_for(recipe.start, "the picture that it began with", "--start", found.folder)


def _mask(recipe: "Recipe", found: Found) -> Path | None:
    from licht.core.errors import InvalidRequest

    if recipe.mask is not None and found.mask is None:
        raise InvalidRequest("the picture was made with a mask; name it with --mask", field="mask")
    return found.mask


def _loras(recipe: "Recipe", found: Found) -> "tuple[LoraUse, ...]":
    """The adapters that were named, as strong as they were if nothing else is said."""
    from dataclasses import replace

    from licht.core.errors import InvalidRequest
    from licht.generate import lora_from

    if len(found.loras) < len(recipe.loras):
        raise InvalidRequest(
            f"the picture was made with {len(recipe.loras)} LoRA files; name them in order with --lora", field="loras"
        )
    uses = []
    for number, text in enumerate(found.loras):
        use = lora_from(text)
        if number < len(recipe.loras):
            before = recipe.loras[number]
            strength = before.strength if str(use.path) == text else use.strength
            use = replace(use, strength=strength, allow_partial=before.allow_partial)
        uses.append(use)
    return tuple(uses)


def _differences(recipe: "Recipe", made: "Recipe") -> list[str]:
    """What keeps the new picture from being the old one although nobody asked for it to differ."""
    found = []
    if made.weights != recipe.weights:
        found.append(f"{made.model} has other weights than the picture was made with")
    if made.device != recipe.device:
        found.append(f"the picture was made on {recipe.device}, this one on {made.device}: pixels may differ slightly")
    if [one.sha256 for one in made.references] != [one.sha256 for one in recipe.references]:
        found.append("the references are not the ones that the picture was made with")
    if made.mask != recipe.mask or (made.start and made.start.sha256) != (recipe.start and recipe.start.sha256):
        found.append("the start or the mask is not the one that the picture was made with")
    if [one.weights for one in made.loras] != [one.weights for one in recipe.loras]:
        found.append("the LoRA files are not the ones that the picture was made with")
    return found
