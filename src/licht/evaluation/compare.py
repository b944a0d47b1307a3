"""How far Licht is from the reference implementation on the same weights, from a prompt to its pixels.

Every component gets the same inputs on both sides; the drawings at the end go all the way on each side by itself. One
large network is in memory at a time: ours, then theirs.

Shapes: B batch, T text tokens, L latent tokens, R reference tokens, C channels, D width.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

import torch
from torch import Tensor

from licht.checkpoint.folder import ModelFiles
from licht.checkpoint.load import Placement, load_autoencoder, load_tower, load_transformer
from licht.core.errors import NotAvailable
from licht.core.request import Picture, Reference
from licht.core.sizes import Size
from licht.engine import stages
from licht.engine.pictures import prepare_references, to_picture, to_tensor
from licht.engine.prompts import PromptTokenizer
from licht.engine.settle import uses_two_passes
from licht.evaluation.golden import ReferenceDrawing, ReferenceModel, Step, TextInputs
from licht.evaluation.measured import (
    EXACT,
    TOLERANCES,
    Case,
    Measured,
    Tolerance,
    free_memory,
    largest_pixel_difference,
    relative_error,
    sample_picture,
    share_differing,
)
from licht.model.autoencoder import Autoencoder
from licht.model.positions import image_ids, text_ids
from licht.model.transformer import Flux2Transformer
from licht.sampling.noise import initial_noise, tokens_to_grid
from licht.sampling.schedule import sigmas
from licht.sampling.solvers import euler

STEPS: Final = 4
SEED: Final = 7
SCHEDULE_TOLERANCE: Final = 1e-6
"""Absolute: the reference keeps its noise levels in float32."""

_LONG = "a large shiny red sphere to the left of a small matte blue cube on a gray floor, light from the left, "
PROMPTS: Final[Mapping[str, str]] = MappingProxyType(
    {
        "short": "a large shiny red sphere on a gray floor, light from the left",
        "empty": "",
        "long": _LONG * 40,
        "marks": 'a sign that says "{prompt} [IMG] 100% <b>50/50</b>",\n\ttwo  lines ',
        "letters": "zwei Vögel am Fluß, un café crème, cafe\u0301, привет, 一只猫, 🦊",
    }
)
"""Prompts that are padded or cut, and some that are hard on a template or on a vocabulary."""

SCHEDULES: Final = tuple(
    (tokens, steps)
    for tokens in (16, 35, 256, 1024, 4096, 4288, 4300, 4301, 4352, 8192, 16384)
    for steps in (1, 2, 4, 10, 28, 50)
)
"""(tokens, steps), on both sides of the jump at 4300 tokens."""

CASES: Final = (
    Case("square", PROMPTS["short"], Size(128, 128)),
    Case("wide", PROMPTS["short"], Size(256, 96)),
    Case("odd", PROMPTS["short"], Size(80, 112)),
    Case("one reference", PROMPTS["short"], Size(112, 80), (Size(150, 99),)),
    Case("three references", PROMPTS["short"], Size(96, 128), (Size(128, 96), Size(67, 131), Size(80, 80))),
)


@dataclass(frozen=True, slots=True)
class Ours:
    """Our side of one drawing, kept on the CPU until the reference has had its turn."""

    case: Case
    inputs: TextInputs
    pictures: tuple[Picture, ...]
    prepared: tuple[Picture, ...]
    references: stages.ReferenceTokens | None
    noise_1LC: Tensor
    steps: tuple[Step, ...]
    velocities: tuple[Tensor, ...]
    latents_1LC: Tensor
    image_1CHW: Tensor


def compare_model(files: ModelFiles, placement: Placement, cases: Sequence[Case] = CASES) -> Iterator[Measured]:
    """Compare everything between a prompt and its pixels. Rows come as they are measured.

    Raises `NotAvailable` if the reference is not installed, cannot read this model, or if no tolerance is known for the
    number format of `placement`.
    """
    reference, allowed = ReferenceModel(files, placement), tolerance_of(placement)
    # convolutions on a GPU round float32 to ten bits by default, and may choose another kernel on either side
    with torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=False, allow_tf32=False):
        yield from _compare(files, placement, reference, allowed, cases)


def _compare(
    files: ModelFiles, placement: Placement, reference: ReferenceModel, allowed: Tolerance, cases: Sequence[Case]
) -> Iterator[Measured]:
    yield from compare_prompts(files, reference)
    yield from compare_schedules(files, reference)
    prompts = {**PROMPTS, **{case.name: case.prompt for case in cases}}
    ours, theirs = encode_prompts(files, placement, prompts), reference.text(prompts)
    for name in PROMPTS:
        error = relative_error(ours[name], theirs[name])
        yield Measured(files.variant.name, name, "text embeddings", error, allowed.component)
    drawn = draw_cases(files, placement, cases, ours)
    with reference.drawing() as drawing:
        for ours_drawn in drawn:
            yield from compare_drawing(files, ours_drawn, drawing, text_inputs(files, ours_drawn.case, theirs), allowed)


def tolerance_of(placement: Placement) -> Tolerance:
    """What is allowed in the number format of `placement`. Raises `NotAvailable` for one without a tolerance."""
    if placement.dtype is None or placement.dtype not in TOLERANCES:
        raise NotAvailable(f"no tolerance is known for {placement.dtype}; compare in float32 or bfloat16")
    return TOLERANCES[placement.dtype]


def compare_prompts(files: ModelFiles, reference: ReferenceModel) -> Iterator[Measured]:
    """Template text, token ids and mask of every prompt: they must be equal."""
    tokenizer = PromptTokenizer(files.parts.tokenizer, files.variant.text, files.template)
    texts, tokens = reference.prompt_texts(PROMPTS), reference.prompt_tokens(PROMPTS)
    for name, prompt in PROMPTS.items():
        ours, (ids_BL, mask_BL) = tokenizer([prompt]), tokens[name]
        differs = float(tokenizer.text(prompt) != texts[name])
        yield Measured(files.variant.name, name, "template", differs, EXACT)
        yield Measured(files.variant.name, name, "token ids", share_differing(ours.ids_BL, ids_BL), EXACT)
        differing = share_differing(ours.attended_BL, mask_BL.bool())
        yield Measured(files.variant.name, name, "attention mask", differing, EXACT)


def compare_schedules(files: ModelFiles, reference: ReferenceModel) -> Iterator[Measured]:
    """The noise levels of all `SCHEDULES`: the largest difference of any."""
    worst = 0.0
    for tokens, steps in SCHEDULES:
        theirs = reference.sigmas(tokens, steps).double()
        ours = torch.tensor(sigmas(tokens, steps), dtype=torch.float64)
        worst = max(worst, float((ours - theirs).abs().max()) if ours.shape == theirs.shape else 1.0)
    yield Measured(files.variant.name, f"{len(SCHEDULES)} schedules", "noise levels", worst, SCHEDULE_TOLERANCE)


@torch.inference_mode()
def encode_prompts(files: ModelFiles, placement: Placement, prompts: Mapping[str, str]) -> dict[str, Tensor]:
    """Our embeddings (1, T, D) of prompts by name, on the CPU; "" is always among them."""
    tokenizer = PromptTokenizer(files.parts.tokenizer, files.variant.text, files.template)
    tower = load_tower(files.tower, placement, files.variant.text)
    encoded = {name: stages.encode_prompt(tower, tokenizer([prompt])).cpu() for name, prompt in prompts.items()}
    del tower
    free_memory()
    return encoded


def text_inputs(files: ModelFiles, case: Case, encoded: Mapping[str, Tensor]) -> TextInputs:
    """What steers the drawing of `case`, at the model's own guidance scale."""
    guidance = files.variant.default_guidance if files.variant.takes_guidance else None
    twice = uses_two_passes(files.variant, guidance)
    return TextInputs(encoded[case.name], encoded["empty"] if twice else None, guidance)


def draw_cases(
    files: ModelFiles, placement: Placement, cases: Sequence[Case], encoded: Mapping[str, Tensor]
) -> list[Ours]:
    """Draw every case on our side."""
    autoencoder = load_autoencoder(files.autoencoder, placement, files.autoencoder_config)
    transformer = load_transformer(files.transformer, placement, files.transformer_config)
    drawn = [_draw(files, autoencoder, transformer, case, text_inputs(files, case, encoded)) for case in cases]
    del autoencoder, transformer
    free_memory()
    return drawn


@torch.inference_mode()
def _draw(
    files: ModelFiles, autoencoder: Autoencoder, transformer: Flux2Transformer, case: Case, inputs: TextInputs
) -> Ours:
    weight = transformer.img_in.weight
    pictures = tuple(sample_picture(size, SEED + number) for number, size in enumerate(case.references))
    prepared = tuple(prepare_references([Reference(picture) for picture in pictures], files.variant))
    references = None
    if prepared:
        references = stages.join_references([stages.encode_reference(autoencoder, picture) for picture in prepared])
    cache = None
    if references is not None and files.variant.caches_references:
        cache = stages.cache_references(transformer, references, inputs.guidance)
    conditions = stages.Conditions(
        inputs.text_1TD.to(weight.device),
        None if inputs.unconditional_1TD is None else inputs.unconditional_1TD.to(weight.device),
        inputs.guidance,
        references,
        cache,
    )
    velocity = stages.velocity_of(transformer, conditions, case.size.grid)
    noise = initial_noise(SEED, case.size.grid, files.variant.transformer.in_channels)
    steps: list[Step] = []
    velocities: list[Tensor] = []

    def observed(latents_1LC: Tensor, t: float) -> Tensor:
        found = velocity(latents_1LC, t)
        steps.append((t, latents_1LC.cpu()))
        velocities.append(found.cpu())
        return found

    latents = noise.to(weight.device)
    for latents in euler(observed, latents, sigmas(case.size.tokens, STEPS)):  # noqa: B007, B020
        pass
    grid = tokens_to_grid(latents, case.size.grid).to(weight.dtype)
    image = autoencoder.decode(grid).cpu()
    return Ours(
        case, inputs, pictures, prepared, references, noise, tuple(steps), tuple(velocities), latents.cpu(), image
    )


def compare_drawing(
    files: ModelFiles, ours: Ours, drawing: ReferenceDrawing, theirs: TextInputs, allowed: Tolerance
) -> Iterator[Measured]:
    """Everything between embedded prompts and pixels of one case; `theirs` are the reference's own embeddings."""
    name, size = files.variant.name, ours.case.size

    def row(component: str, error: float, tolerance: float) -> Measured:
        return Measured(name, ours.case.name, component, error, tolerance)

    noise, x_ids = drawing.noise(SEED, size)
    yield row("noise", share_differing(ours.noise_1LC, noise), EXACT)
    positions = [share_differing(image_ids(size.grid)[None], x_ids)]
    positions.append(share_differing(text_ids(ours.inputs.text_1TD.shape[1])[None], drawing.text_ids(theirs.text_1TD)))
    if ours.references is not None:
        errors = [
            relative_error(to_tensor(prepared), drawing.pixels(picture))
            for prepared, picture in zip(ours.prepared, ours.pictures, strict=True)
        ]
        yield row("reference pixels", max(errors), allowed.component)
        theirs_encoded = drawing.references(ours.pictures)
        error = relative_error(ours.references.tokens_1RC, theirs_encoded.tokens_1RC)
        yield row("reference latents", error, allowed.component)
        positions.append(share_differing(ours.references.ids[None], theirs_encoded.ids))
    yield row("position ids", max(positions), EXACT)

    velocities = drawing.velocities(ours.steps, size, ours.inputs, ours.pictures)
    errors = [relative_error(a, b) for a, b in zip(ours.velocities, velocities, strict=True)]
    yield row("velocity", max(errors), allowed.component)
    final = tokens_to_grid(ours.latents_1LC, size.grid)
    yield row("decoded image", relative_error(ours.image_1CHW, drawing.decode(final)), allowed.component)

    if not drawing.can_draw(ours.pictures):
        return
    drawn = drawing.draw(tokens_to_grid(ours.noise_1LC, size.grid), STEPS, size, theirs, ours.pictures)
    yield row("final latents", relative_error(ours.latents_1LC, drawn.latents_1LC), allowed.drawing)
    picture = to_picture(ours.image_1CHW[0])
    yield row("pixels", largest_pixel_difference(picture, drawn.picture), allowed.pixels)
