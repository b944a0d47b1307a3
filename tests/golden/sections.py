"""Everything that is measured, in sections: what the tests assert is what the report prints."""

import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType

import torch
from diffusers.pipelines.flux2.pipeline_flux2_klein import Flux2KleinPipeline
from diffusers.pipelines.flux2.pipeline_flux2_klein_kv import Flux2KleinKVPipeline

from licht.checkpoint.assets import built_in
from licht.checkpoint.convert import convert
from licht.checkpoint.detect import Layout
from licht.checkpoint.folder import ModelFiles, read_file, read_folder
from licht.checkpoint.load import Placement, load_autoencoder, load_transformer
from licht.checkpoint.save import Target, save_network
from licht.core.sizes import Size
from licht.engine.prompts import PromptTokenizer
from licht.evaluation.compare import CASES, PROMPTS, compare_model, encode_prompts
from licht.evaluation.golden import ReferenceModel
from licht.evaluation.measured import EXACT, Case, Measured, relative_error, share_differing
from licht.model.variants import MISTRAL_SMALL, TextConfig
from tests.golden import inpaint, inside, models, whole

FLOAT32 = Placement(torch.device("cpu"), torch.float32)
BFLOAT16 = Placement(torch.device("cpu"), torch.bfloat16)
HAS_MISTRAL_COMMON = sys.version_info < (3, 14)
"""`mistral-common` cannot be installed beyond."""

INDEPENDENT = {"template", "token ids", "attention mask", "noise levels", "noise", "position ids", "reference pixels"}
"""Components that are the same in every number format."""


class Models:
    """The small random models, each built when it is first asked for."""

    def __init__(self, folder: Path) -> None:
        """Build below `folder`."""
        self.folder = folder

    def files(self, kind: str) -> ModelFiles:
        """The model of a kind of `models.RECIPES`, or one of `TRAINED`, in a form that the reference can read."""
        folder = self.folder / kind
        if kind in TRAINED:
            shipped = read_folder(built_in()[kind])
            if kind == "nano":
                return shipped
            if not folder.exists():
                # stored in fewer bits: what is compared are the values that those stand for
                convert(shipped, folder, Layout.DIFFUSERS, "none", lambda _: None)
        elif not folder.exists():
            models.build(models.RECIPES[kind], folder)
        return read_folder(folder)

    def official(self, kind: str) -> ModelFiles:
        """The same model with transformer and autoencoder in official files, as Licht writes them."""
        files = self.files(kind)
        folder = self.folder / f"{kind}-official"
        if not folder.exists():
            transformer = load_transformer(files.transformer, FLOAT32, files.transformer_config)
            autoencoder = load_autoencoder(files.autoencoder, FLOAT32, files.autoencoder_config)
            save_network(
                transformer, Target(folder, "transformer"), Layout.OFFICIAL, {"licht.kind": files.variant.kind}
            )
            save_network(autoencoder, Target(folder / "vae", "ae"), Layout.OFFICIAL)
            # an official file has no config, which only matters because the widths here are not official
            (folder / "vae" / "config.json").write_bytes((files.parts.autoencoder / "config.json").read_bytes())
            (folder / "text_encoder").symlink_to(files.parts.text_encoder)
            (folder / "tokenizer").symlink_to(files.parts.tokenizer)
            licht = files.parts.transformer.parent / "licht.json"
            if licht.is_file():
                (folder / "licht.json").write_bytes(licht.read_bytes())
        return read_file(folder / "transformer.safetensors", None, None, None)


@dataclass(frozen=True, slots=True)
class Section:
    """Rows that are measured together, and what they are about."""

    title: str
    measure: Callable[[Models], Iterator[Measured]]


def _float32(kind: str) -> Callable[[Models], Iterator[Measured]]:
    return lambda built: compare_model(built.files(kind), FLOAT32)


def _bfloat16(kind: str) -> Callable[[Models], Iterator[Measured]]:
    """What depends on the number format."""
    cases = (CASES[0], CASES[1], CASES[-1])

    def measure(built: Models) -> Iterator[Measured]:
        rows = compare_model(built.files(kind), BFLOAT16, cases)
        return (replace(row, variant=f"{kind}, bfloat16") for row in rows if row.component not in INDEPENDENT)

    return measure


def _inside(kind: str) -> Callable[[Models], Iterator[Measured]]:
    def measure(built: Models) -> Iterator[Measured]:
        files = built.files(kind)
        yield from inside.compare_transformer_blocks(files, FLOAT32)
        yield from inside.compare_text_layers(files, FLOAT32)
        yield from inside.compare_autoencoder_levels(files, FLOAT32)

    return measure


def _official(kind: str) -> Callable[[Models], Iterator[Measured]]:
    """Official files that Licht wrote, read by the reference's own conversion."""
    cases = (Case("official files", PROMPTS["short"], Size(64, 80), (Size(64, 64),)),)

    def measure(built: Models) -> Iterator[Measured]:
        rows = compare_model(built.official(kind), FLOAT32, cases)
        return (replace(row, variant=kind) for row in rows if row.case == "official files")

    return measure


def _padding(kind: str, side: str) -> Callable[[Models], Iterator[Measured]]:
    """Text embeddings with the padding on the other side."""

    def measure(built: Models) -> Iterator[Measured]:
        files = built.files(kind)
        folder = built.folder / f"{kind}-{side}"
        if not folder.exists():
            models.with_padding(files.parts.tokenizer, side, folder)
        turned = replace(files, parts=replace(files.parts, tokenizer=folder))
        ours, theirs = encode_prompts(turned, FLOAT32, PROMPTS), ReferenceModel(turned, FLOAT32).text(PROMPTS)
        tokens = ReferenceModel(turned, FLOAT32).prompt_tokens(PROMPTS)
        tokenizer = PromptTokenizer(folder, files.variant.text)
        for name, prompt in PROMPTS.items():
            case = f"{name}, padded {side}"
            ids, mask = tokenizer([prompt]), tokens[name]
            yield Measured(kind, case, "token ids", share_differing(ids.ids_BL, mask[0]), EXACT)
            yield Measured(kind, case, "attention mask", share_differing(ids.attended_BL, mask[1].bool()), EXACT)
            yield Measured(kind, case, "text embeddings", relative_error(ours[name], theirs[name]), 1e-5)

    return measure


def _whole(kind: str) -> Callable[[Models], Iterator[Measured]]:
    if kind == "nano":
        return _whole_nano
    if kind == "nano-base":
        return lambda built: whole.compare_drawings(built.files(kind), Flux2KleinPipeline, whole.TRAINED_DRAWINGS)
    pipeline = models.RECIPES[kind].pipeline
    return lambda built: whole.compare_drawings(built.files(kind), pipeline, whole.DRAWINGS)


def _whole_nano(built: Models) -> Iterator[Measured]:
    """With references by the pipeline that caches them, without by the plain one."""
    files = built.files("nano")
    yield from whole.compare_drawings(files, Flux2KleinPipeline, whole.TRAINED_DRAWINGS)
    yield from whole.compare_drawings(files, Flux2KleinKVPipeline, whole.REFERENCE_DRAWINGS)


def _changes(kind: str) -> Callable[[Models], Iterator[Measured]]:
    return lambda built: inpaint.compare_changes(built.files(kind))


def _vocabulary(built: Models) -> Iterator[Measured]:
    """Ids of the dev template in the real vocabulary, with and without a chat template, against Mistral's own encoder."""
    from tests.golden import vocabulary

    judge = vocabulary.MistralEncoder()
    text = TextConfig(MISTRAL_SMALL, (10, 20, 30))
    folder = built.folder / "vocabulary"
    if not folder.exists():
        vocabulary.convert(folder, models.MISTRAL_TEMPLATE)
    chat = PromptTokenizer(folder, text)
    own = PromptTokenizer(models.without_chat_template(folder, built.folder / "vocabulary-own"), text)
    for template, tokenizer in (("own template", own), ("chat template", chat)):
        for name, prompt in PROMPTS.items():
            tokens = tokenizer([prompt])
            ours = tokens.ids_BL[0][tokens.attended_BL[0]]
            theirs = torch.tensor(judge.ids(prompt.replace("[IMG]", "")))[: text.length]
            differing = share_differing(ours, theirs)
            yield Measured("dev", f"{name}, {template}", "token ids, real vocabulary", differing, EXACT)


KINDS = ("dev", "klein", "base", "kv")
GUIDED = ("cached base", "cached dev")
"""Guided over cached references, as `nano-base` and `nano-dev` draw: no pipeline of the reference does."""
CHANGING = ("klein", "base")
"""The kinds that the reference's pipeline for masks can draw with: it caches no references."""
TRAINED = ("nano", "nano-base", "nano-dev")
"""What ships with Licht."""

SECTIONS: Mapping[str, Section] = MappingProxyType(
    {
        **{
            f"{kind}-float32": Section("From a prompt to pixels, float32", _float32(kind))
            for kind in (*KINDS, *GUIDED, *TRAINED)
        },
        **{f"{kind}-bfloat16": Section("From a prompt to pixels, bfloat16", _bfloat16(kind)) for kind in KINDS},
        **{f"{kind}-inside": Section("Inside the networks, float32", _inside(kind)) for kind in KINDS},
        **{f"{kind}-whole": Section("Whole drawings, float32", _whole(kind)) for kind in (*KINDS, "nano", "nano-base")},
        **{f"{kind}-changes": Section("Changes under a mask, float32", _changes(kind)) for kind in CHANGING},
        "dev-right": Section("Padding on the other side, float32", _padding("dev", "right")),
        "klein-left": Section("Padding on the other side, float32", _padding("klein", "left")),
        "dev-official": Section("Official files", _official("dev")),
        "kv-official": Section("Official files", _official("kv")),
        "vocabulary": Section("The real Mistral vocabulary", _vocabulary),
    }
)
