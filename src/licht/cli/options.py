"""Options that several verbs share, and what they stand for."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from licht.core.request import Reference
    from licht.core.sizes import Size
    from licht.generate import Delivery, Model
    from licht.model.variants import Variant

ModelName = Annotated[str, typer.Option("--model", "-m", help="A model's name, folder or file.")]
VariantName = Annotated[
    str | None, typer.Option(help="What kind the model is, where it does not say: klein, base, dev or kv.")
]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:N or mps.")]
Dtype = Annotated[str, typer.Option(help="auto, float32 or bfloat16.")]
Quant = Annotated[
    str, typer.Option(help="Quantise the large matrices while they are read: none, fp8, int8, q4 or nvfp4.")
]
IgnorePlan = Annotated[bool, typer.Option("--ignore-plan", help="Draw even if it is planned not to fit into memory.")]
Vae = Annotated[Path | None, typer.Option(help="Autoencoder for a transformer in a single file.")]
TextEncoder = Annotated[Path | None, typer.Option(help="Text encoder folder for a single file.")]
CacheFolder = Annotated[
    Path | None, typer.Option("--cache", help="Keep encoded prompts and references in this folder, for later runs.")
]
PolicyName = Annotated[str, typer.Option(help="off, default or strict.")]
SizeText = Annotated[str | None, typer.Option(help="WIDTHxHEIGHT in pixels, multiples of 16.")]
Aspect = Annotated[str | None, typer.Option(help="W:H, or square, landscape, portrait, photo, wide, tall, cinema.")]
Megapixels = Annotated[float | None, typer.Option(help="Area in megapixels of 1024x1024, up to 4.")]
Steps = Annotated[int | None, typer.Option(help="Denoising steps, 1 to 50 (default: the model's).")]
Guidance = Annotated[float | None, typer.Option(help="Guidance scale (default: the model's).")]
NativeOnly = Annotated[bool, typer.Option("--native-only", help="Refuse sizes beyond those the model was trained on.")]
Loras = Annotated[
    list[str] | None, typer.Option("--lora", metavar="FILE[:STRENGTH]", help="A LoRA file; repeat for several.")
]
PartialLoras = Annotated[
    bool, typer.Option("--allow-partial-lora", help="Use the keys of a LoRA that fit where others do not.")
]
FinishName = Annotated[str, typer.Option("--finish", help="The look of a snapshot: none, phone or film.")]
KeepPrompt = Annotated[
    bool, typer.Option("--keep-prompt", help="Write the prompt into the picture's metadata; otherwise it stays out.")
]
StrictLength = Annotated[
    bool, typer.Option("--strict-length", help="Refuse a prompt that is too long for the model instead of cutting it.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print a JSON report instead of the paths.")]


@dataclass(frozen=True, slots=True)
class Opening:
    """Which model is opened, and how."""

    model: str
    variant: str | None = None
    device: str = "auto"
    dtype: str = "auto"
    quant: str = "none"
    ignore_plan: bool = False
    policy: str = "default"
    vae: Path | None = None
    text_encoder: Path | None = None
    cache: Path | None = None

    def open(self) -> "Model":
        """The model, ready to draw. Raises `UnknownModel` and its kin."""
        from licht import load

        return load(
            self.model,
            variant=self.variant,
            device=self.device,
            dtype=self.dtype,
            quant=self.quant,
            ignore_plan=self.ignore_plan,
            policy=self.policy,
            autoencoder=self.vae,
            text_encoder=self.text_encoder,
            cache=self.cache,
        )


def delivery_of(finish: str, keep_prompt: bool, strict_length: bool) -> "Delivery":
    """How pictures are handed out. Raises `InvalidRequest` for an unknown finish."""
    from licht.finish import parse_finish
    from licht.generate import Delivery

    return Delivery(parse_finish(finish), keep_prompt, strict_length)


def reference_of(text: str, number: int) -> "Reference":
    """Read FILE or FILE:role=style,strength=1.5. Raises `InvalidImage`, `InvalidRequest`.

    A file whose own name ends like that is taken for the file.
    """
    from dataclasses import replace

    from licht.core.errors import InvalidRequest
    from licht.generate import reference_from, role_from

    name, options = _split(text)
    reference = reference_from(name, number)
    for option in filter(None, options.split(",")):
        key, _, value = (part.strip() for part in option.partition("="))
        if key == "role":
            reference = replace(reference, role=role_from(value))
        elif key == "strength":
            try:
                strength = float(value)
            except ValueError:
                raise InvalidRequest(f"strength {value!r} of {name} is no number", field="strengths") from None
            reference = replace(reference, strength=strength)
    return reference


def _split(text: str) -> tuple[str, str]:
    """(file, options): what follows the last colon belongs to the name unless it only consists of options."""
    name, colon, options = text.rpartition(":")
    keys = {option.partition("=")[0].strip() for option in options.split(",")}
    if not colon or not name or "=" not in options or not keys <= {"role", "strength"} or Path(text).exists():
        return text, ""
    return name, options


def size_of(size: str | None, aspect: str | None, megapixels: float | None, variant: "Variant") -> "Size | None":
    """The size that was asked for, as a size or as ratio and area; None leaves it to the model and the references.

    Raises `InvalidRequest`.
    """
    from licht.core.aspects import asked_size
    from licht.core.errors import InvalidRequest
    from licht.core.sizes import parse_size

    if size is not None:
        if aspect is not None or megapixels is not None:
            raise InvalidRequest("--size says it all; leave --aspect and --megapixels out, or --size", field="size")
        return parse_size(size)
    return asked_size(aspect, megapixels, variant.default_size, variant.trained_sizes)
