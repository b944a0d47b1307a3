"""Every size and kind of FLUX.2 as frozen data: what a network is made of and how it wants to be run. No torch."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from types import MappingProxyType
from typing import Final

from licht.core.sizes import Size


class Kind(StrEnum):
    """How a checkpoint was trained, which its shapes do not always tell."""

    KLEIN = "klein"
    """Steps and guidance distilled: one pass a step, no guidance scale."""
    BASE = "base"
    """Undistilled: two passes a step, classifier-free guidance."""
    DEV = "dev"
    """Guidance distilled: one pass a step, the scale is an input of the network."""
    KV = "kv"
    """Like klein; references are modulated at time 0, attend only to themselves and are cached."""


@dataclass(frozen=True, slots=True)
class TransformerConfig:
    """The flow transformer. `hidden_size` = `num_heads` x sum of `axes_dim`."""

    hidden_size: int
    num_heads: int
    depth: int
    depth_single_blocks: int
    context_in_dim: int
    guidance_embed: bool
    in_channels: int = 128
    mlp_ratio: float = 3.0
    axes_dim: tuple[int, ...] = (32, 32, 32, 32)
    theta: int = 2000

    @property
    def head_dim(self) -> int:
        """Width of one attention head."""
        return self.hidden_size // self.num_heads

    @property
    def mlp_hidden_size(self) -> int:
        """Width between the two halves of a SwiGLU MLP."""
        return int(self.hidden_size * self.mlp_ratio)

    @property
    def parameters(self) -> int:
        """Number of weights, in closed form (each block's matrices have 26 h^2 or 13 h^2 entries at MLP ratio 3)."""
        h, m, c = self.hidden_size, self.mlp_hidden_size, self.in_channels
        double = 2 * (4 * h * h + 3 * m * h) + 4 * self.head_dim
        single = 4 * h * h + 3 * m * h + 2 * self.head_dim
        embedders = (2 if self.guidance_embed else 1) * (256 * h + h * h)
        modulation = 15 * h * h + 2 * h * h
        return (
            self.depth * double
            + self.depth_single_blocks * single
            + embedders
            + modulation
            + (2 * c + self.context_in_dim) * h
        )


@dataclass(frozen=True, slots=True)
class AutoencoderConfig:
    """The autoencoder: widths from the highest resolution down, one level per entry."""

    channels: tuple[int, ...] = (128, 256, 512, 512)
    decoder_channels: tuple[int, ...] = (128, 256, 512, 512)
    num_res_blocks: int = 2
    z_channels: int = 32
    norm_groups: int = 32
    batch_norm_eps: float = 1e-4

    @property
    def token_channels(self) -> int:
        """Channels of one latent token: 2 x 2 patches of `z_channels`."""
        return 4 * self.z_channels


class Tower(StrEnum):
    """Architecture of the language model that reads the prompt."""

    QWEN3 = "qwen3"
    MISTRAL3 = "mistral3"


@dataclass(frozen=True, slots=True)
class TowerConfig:
    """A decoder-only language model, as far as its hidden states are used. `num_layers` is the full depth."""

    tower: Tower
    vocab_size: int
    hidden_size: int
    intermediate_size: int
    num_layers: int
    num_attention_heads: int
    num_key_value_heads: int
    head_dim: int
    rope_theta: float
    rms_norm_eps: float


@dataclass(frozen=True, slots=True)
class TextConfig:
    """How a prompt becomes the transformer's context.

    `layers` are indices into the hidden states (0 is the embedding, k the output of layer k); their vectors are
    concatenated per token. `length` is the fixed number of tokens, padding included.
    """

    tower: TowerConfig
    layers: tuple[int, ...]
    length: int = 512

    @property
    def context_dim(self) -> int:
        """Width of the stacked hidden states."""
        return len(self.layers) * self.tower.hidden_size

    @property
    def layers_used(self) -> int:
        """Number of layers that have to run; the rest is neither loaded nor run."""
        return max(self.layers)


@dataclass(frozen=True, slots=True)
class Variant:
    """One model: its networks and the way it is meant to be run."""

    name: str
    kind: Kind
    transformer: TransformerConfig
    autoencoder: AutoencoderConfig
    text: TextConfig
    default_steps: int
    default_guidance: float | None
    max_references: int
    caches_references: bool = False
    """References are modulated at time 0 and attend only to themselves, so their keys and values are computed once."""
    structured_prompts: bool = False
    """It has learned structured prompts as JSON; the others read them as prose."""
    default_size: Size = field(default=Size(1024, 1024))
    trained_sizes: tuple[Size, ...] = ()
    licence: str = "unknown"
    repository: str | None = None
    transformer_file: str | None = None
    extra_reference_px: int = field(default=1024 * 1024)
    """Area to which each of several references is capped."""
    single_reference_px: int = field(default=2024 * 2024)
    """Area to which a lone reference is capped."""

    @property
    def takes_guidance(self) -> bool:
        """Whether a guidance scale means anything to this kind."""
        return self.kind in (Kind.BASE, Kind.DEV)


QWEN3_4B: Final = TowerConfig(Tower.QWEN3, 151936, 2560, 9728, 36, 32, 8, 128, 1e6, 1e-6)
QWEN3_8B: Final = TowerConfig(Tower.QWEN3, 151936, 4096, 12288, 36, 32, 8, 128, 1e6, 1e-6)
MISTRAL_SMALL: Final = TowerConfig(Tower.MISTRAL3, 131072, 5120, 32768, 40, 32, 8, 128, 1e9, 1e-5)

DEV_TRANSFORMER: Final = TransformerConfig(6144, 48, 8, 48, 15360, guidance_embed=True)
KLEIN_9B_TRANSFORMER: Final = TransformerConfig(4096, 32, 8, 24, 12288, guidance_embed=False)
KLEIN_4B_TRANSFORMER: Final = TransformerConfig(3072, 24, 5, 20, 7680, guidance_embed=False)

AUTOENCODER: Final = AutoencoderConfig()
SMALL_DECODER: Final = AutoencoderConfig(decoder_channels=(96, 192, 384, 384))

_APACHE = "Apache-2.0"
_NON_COMMERCIAL = "FLUX Non-Commercial"


def _klein(size: str, kind: Kind, suffix: str, steps: int, guidance: float | None) -> Variant:
    """One of the klein models; `size` is "4b" or "9b", `suffix` the part of the name that tells its kind."""
    small = size == "4b"
    tower = QWEN3_4B if small else QWEN3_8B
    name = f"klein-{'base-' if kind is Kind.BASE else ''}{size}{suffix}"
    # of all repositories only those with a suffix write the size in small letters
    repository = name if suffix else name.replace(size, size.upper())
    return Variant(
        name=name,
        kind=kind,
        transformer=KLEIN_4B_TRANSFORMER if small else KLEIN_9B_TRANSFORMER,
        autoencoder=AUTOENCODER,
        text=TextConfig(tower, (9, 18, 27)),
        default_steps=steps,
        default_guidance=guidance,
        max_references=10,
        caches_references=kind is Kind.KV,
        licence=_APACHE if small else _NON_COMMERCIAL,
        repository=f"black-forest-labs/FLUX.2-{repository}",
        transformer_file=f"flux-2-{name}.safetensors",
    )


_DEV = Variant(
    name="dev",
    kind=Kind.DEV,
    transformer=DEV_TRANSFORMER,
    autoencoder=AUTOENCODER,
    text=TextConfig(MISTRAL_SMALL, (10, 20, 30)),
    structured_prompts=True,
    default_steps=50,
    default_guidance=4.0,
    max_references=10,
    licence=_NON_COMMERCIAL,
    repository="black-forest-labs/FLUX.2-dev",
    transformer_file="flux2-dev.safetensors",
)

VARIANTS: Final[Mapping[str, Variant]] = MappingProxyType(
    {
        variant.name: variant
        for variant in (
            _DEV,
            _klein("4b", Kind.KLEIN, "", 4, None),
            _klein("9b", Kind.KLEIN, "", 4, None),
            _klein("9b", Kind.KV, "-kv", 4, None),
            _klein("4b", Kind.BASE, "", 50, 4.0),
            _klein("9b", Kind.BASE, "", 50, 4.0),
        )
    }
)
"""The official models by name. A model folder describes itself and needs no entry here."""
