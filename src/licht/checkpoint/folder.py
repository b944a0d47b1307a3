"""The model folder: the diffusers layout plus, where the official values do not hold, a `licht.json`."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from licht.checkpoint.detect import (
    Config,
    autoencoder_config,
    autoencoder_layout_of,
    tower_config,
    transformer_config,
    transformer_layout_of,
)
from licht.checkpoint.gguf_tower import GgufTower
from licht.checkpoint.packed import open_weights
from licht.checkpoint.reader import TensorSource, read_json
from licht.core.errors import AmbiguousModel, InvalidCheckpoint, InvalidRequest, UnknownModel
from licht.core.sizes import Size, check_size
from licht.model.variants import VARIANTS, AutoencoderConfig, Kind, TextConfig, Tower, TransformerConfig, Variant

if TYPE_CHECKING:
    from licht.checkpoint.description import Description

_PIPELINE_KINDS: Mapping[str, Kind] = {"Flux2Pipeline": Kind.DEV, "Flux2KleinKVPipeline": Kind.KV}
_OFFICIAL_LAYERS = {Tower.QWEN3: (9, 18, 27), Tower.MISTRAL3: (10, 20, 30)}


@dataclass(frozen=True, slots=True)
class Parts:
    """Where the parts of a model lie: files or folders, each in either layout; `tokenizer` is a folder."""

    transformer: Path
    autoencoder: Path
    text_encoder: Path
    tokenizer: Path


@dataclass(frozen=True, slots=True)
class ModelFiles:
    """A model on disk, understood but not loaded."""

    variant: Variant
    parts: Parts
    transformer: TensorSource = field(repr=False)
    autoencoder: TensorSource = field(repr=False)
    tower: TensorSource = field(repr=False)
    transformer_config: Config = field(repr=False)
    autoencoder_config: Config = field(repr=False)
    template: str | None = None


def read_folder(folder: Path, kind: str | None = None) -> ModelFiles:
    """Understand a model folder. `kind` overrules what it says of itself.

    Raises `InvalidCheckpoint` for missing or broken parts, `AmbiguousModel` if its kind cannot be told.
    """
    from licht.checkpoint.description import read_description

    parts = Parts(folder / "transformer", folder / "vae", folder / "text_encoder", folder / "tokenizer")
    for path in (parts.transformer, parts.autoencoder, parts.text_encoder, parts.tokenizer):
        if not path.is_dir():
            raise UnknownModel(
                f"{folder} is not a model folder: it has no {path.name}/; "
                "expected transformer/, vae/, text_encoder/ and tokenizer/",
                field="model",
            )
    description = read_description(folder / "licht.json")
    index = _optional_json(folder / "model_index.json")
    return assemble(folder.resolve().name, parts, description, index, kind)


def read_file(path: Path, kind: str | None, autoencoder: Path | None, text_encoder: Path | None) -> ModelFiles:
    """Understand a transformer in a single file; its other parts lie beside it unless they are named.

    Beside it are looked for: `ae.safetensors`, `flux2-vae.safetensors` or `vae/`; `text_encoder/` and `tokenizer/`.
    """
    from licht.checkpoint.description import read_description

    beside = path.parent
    open_weights(path)  # before anything is asked for beside it: it may be no checkpoint at all
    candidates = [beside / "ae.safetensors", beside / "flux2-vae.safetensors", beside / "vae"]
    found = autoencoder or next((p for p in candidates if p.exists()), None)
    if found is None or not found.exists():
        raise UnknownModel(f"no autoencoder beside {path}: name one with --vae (ae.safetensors or a vae/ folder)")
    tower = text_encoder or beside / "text_encoder"
    if not tower.exists():
        raise UnknownModel(f"no text encoder beside {path}: name its folder or file with --text-encoder")
    folder = tower if tower.is_dir() else tower.parent
    places = (folder, folder / "tokenizer", folder.parent / "tokenizer", beside / "tokenizer")
    tokenizer = next((p for p in places if (p / "tokenizer.json").is_file()), None)
    if tokenizer is None:
        raise UnknownModel(f"no tokenizer.json in {folder} or in {beside / 'tokenizer'}; copy the tokenizer there")
    known = {variant.transformer_file: variant for variant in VARIANTS.values()}.get(path.name)
    parts = Parts(path, found, tower, tokenizer)
    description = read_description(beside / "licht.json")
    files = assemble(path.stem, parts, description, {}, kind or (known.kind.value if known else None))
    if known and files.variant.transformer != known.transformer:
        raise InvalidCheckpoint(
            f"{path} bears the name of {known.name}, but its tensors make another network; "
            "download it again, or rename it and say what it is with --variant"
        )
    return files


def assemble(
    name: str, parts: Parts, description: "Description", index: Mapping[str, Any], kind: str | None
) -> ModelFiles:
    """Put sources, sizes, kind and defaults together and check that the parts fit one another."""
    transformer, autoencoder, tower = (
        open_weights(path) for path in (parts.transformer, parts.autoencoder, parts.text_encoder)
    )
    configs = {path: _beside_config(path) for path in (parts.transformer, parts.autoencoder, parts.text_encoder)}
    sizes = transformer_config(transformer, transformer_layout_of(transformer), configs[parts.transformer])
    vae_layout = autoencoder_layout_of(autoencoder)
    vae = autoencoder_config(autoencoder, vae_layout, configs[parts.autoencoder])
    said = configs[parts.text_encoder]
    text_tower = tower_config(tower.config if isinstance(tower, GgufTower) and not said else said, tower)
    layers = tuple(description.text_layers or _OFFICIAL_LAYERS[text_tower.tower])
    text = TextConfig(text_tower, layers, description.text_length or 512)
    settled = settle_kind(name, sizes, description, index, transformer.metadata, kind)
    _check_fit(name, sizes, vae.token_channels, text)
    return ModelFiles(
        variant=_variant(name, settled, sizes, description, text, vae),
        parts=parts,
        transformer=transformer,
        autoencoder=autoencoder,
        tower=tower,
        transformer_config=configs[parts.transformer],
        autoencoder_config=configs[parts.autoencoder],
        template=description.template,
    )


def _check_fit(name: str, sizes: TransformerConfig, token_channels: int, text: TextConfig) -> None:
    ascending = list(text.layers) == sorted(set(text.layers))
    # after the last layer comes a norm, which is not part of our towers
    if not ascending or min(text.layers) < 0 or max(text.layers) >= text.tower.num_layers:
        raise InvalidCheckpoint(
            f"{name}: text layers {text.layers} of a text model with {text.tower.num_layers} layers; "
            f"expected ascending numbers from 0 to {text.tower.num_layers - 1}, as the text_layers of licht.json"
        )
    if text.context_dim != sizes.context_in_dim:
        raise InvalidCheckpoint(
            f"{name}: the transformer reads text of width {sizes.context_in_dim}, the text encoder gives "
            f"{text.context_dim} ({len(text.layers)} x {text.tower.hidden_size}); use the encoder it was trained with"
        )
    if token_channels != sizes.in_channels:
        raise InvalidCheckpoint(
            f"{name}: the transformer works on {sizes.in_channels} channels, the autoencoder on {token_channels}; "
            "use the autoencoder it was trained with"
        )


def settle_kind(
    name: str,
    sizes: TransformerConfig,
    description: "Description",
    index: Mapping[str, Any],
    metadata: Mapping[str, str],
    asked: str | None,
) -> Kind:
    """How the checkpoint was trained: as asked, else as it says itself, else by its guidance embedding.

    Raises `AmbiguousModel` naming the choices, `InvalidRequest` if an answer contradicts the shapes.
    """
    said = asked or description.kind or metadata.get("licht.kind")
    if said is None and index:
        pipeline = str(index.get("_class_name", ""))
        if pipeline in _PIPELINE_KINDS:
            said = _PIPELINE_KINDS[pipeline]
        elif isinstance(index.get("is_distilled"), bool):
            said = Kind.KLEIN if index["is_distilled"] else Kind.BASE
    if said is None and sizes.guidance_embed:
        said = Kind.DEV
    if said is None:
        raise AmbiguousModel(
            f"{name} may be klein (distilled), base (undistilled) or kv: their shapes are the same; "
            "say which with --variant klein, --variant base or --variant kv",
            field="variant",
        )
    blame = InvalidRequest if asked else InvalidCheckpoint
    if said in VARIANTS and said not in list(Kind):
        if VARIANTS[said].transformer != sizes:
            raise blame(f"{name} cannot be {said}: its transformer has other sizes; use --variant with its kind")
        said = VARIANTS[said].kind
    if said not in [kind.value for kind in Kind]:
        choices = ", ".join(dict.fromkeys([kind.value for kind in Kind] + list(VARIANTS)))
        raise blame(f"{name}: {said!r} is not a kind of model; say which with --variant: {choices}", field="variant")
    if (said == Kind.DEV) != sizes.guidance_embed:
        has, use = ("has a", "dev") if sizes.guidance_embed else ("has no", "klein, base or kv")
        raise blame(
            f"{name} cannot be {said}: its transformer {has} guidance embedding; use --variant {use}", field="variant"
        )
    return Kind(said)


def _variant(
    name: str,
    kind: Kind,
    sizes: TransformerConfig,
    description: "Description",
    text: TextConfig,
    vae: AutoencoderConfig,
) -> Variant:
    official = next((v for v in VARIANTS.values() if v.kind is kind and v.transformer == sizes), None)
    distilled = kind in (Kind.KLEIN, Kind.KV)
    trained = tuple(_trained_size(name, pair) for pair in description.trained_sizes)
    guidance = None if distilled else 4.0
    cap_px = description.reference_area_px
    return Variant(
        name=official.name if official else name,
        kind=kind,
        transformer=sizes,
        autoencoder=vae,
        text=text,
        default_steps=description.default_steps or (4 if distilled else 50),
        default_guidance=description.default_guidance if description.default_guidance is not None else guidance,
        max_references=description.max_references,
        caches_references=kind is Kind.KV or description.caches_references,
        # dev's language model is asked for structured answers and reads structure; klein is documented to want prose
        structured_prompts=text.tower.tower is Tower.MISTRAL3 or description.structured_prompts,
        default_size=_largest(trained) if trained else Size(1024, 1024),
        trained_sizes=trained,
        licence=official.licence if official else "unknown",
        repository=official.repository if official else None,
        extra_reference_px=cap_px or 1024 * 1024,
        single_reference_px=cap_px or 2024 * 2024,
    )


def _trained_size(name: str, pair: tuple[int, int]) -> Size:
    try:
        return check_size(Size(*pair))
    except InvalidRequest as error:
        raise InvalidCheckpoint(f"{name}: the trained_sizes of licht.json: {error.message}") from error


def _largest(sizes: tuple[Size, ...]) -> Size:
    """The squarest of the largest sizes."""
    return max(sizes, key=lambda size: (size.area_px, -abs(math.log(size.aspect))))


def _beside_config(path: Path) -> Config:
    """The config.json of a part's folder; of a part in a single file, the .json of the same name."""
    return _optional_json(path / "config.json" if path.is_dir() else path.with_suffix(".json"))


def _optional_json(path: Path) -> dict[str, Any]:
    return read_json(path) if path.is_file() else {}
