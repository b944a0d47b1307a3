"""The FLUX.2 flow transformer.

Every parameter bears its official name (`double_blocks.0.img_attn.qkv.weight`). Shapes: B batch, L tokens, T text
tokens, R reference tokens, D width, H heads, C latent channels. In joint attention text comes first, then cached
references, then the image with any references that share its timestep.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from licht.model.attention import Bias, attention, rotate_pairs, split_heads
from licht.model.positions import rotary_table
from licht.model.variants import TransformerConfig

Watch = Callable[[int, Tensor], None] | None
"""(number of a block, the picture's tokens (B, L, D) that it gives)."""

Shift = tuple[Tensor, Tensor, Tensor]
"""(shift, scale, gate) of one branch, each broadcastable to (B, L, D)."""
KeyValue = tuple[Tensor, Tensor]
"""Keys after rotation and values of one block, each (B, H, R, head width)."""
_CACHED = 3 * 2**15
"""So many numbers of queries or keys are normalised and rotated at a time."""


@dataclass(frozen=True, slots=True)
class ReferenceCache:
    """Keys and values of reference tokens for every block. Depends on references and weights only."""

    double: tuple[KeyValue, ...]
    single: tuple[KeyValue, ...]

    @property
    def memory_bytes(self) -> int:
        """Size of all cached tensors."""
        pairs = self.double + self.single
        return sum(tensor.numel() * tensor.element_size() for pair in pairs for tensor in pair)


def timestep_embedding(t_B: Tensor, dim: int = 256, max_period: float = 10000.0) -> Tensor:
    """Sinusoids of `1000 t` in the order [cos, sin]: (..., dim) float32 for `t` of any shape.

    `1000 t` is rounded to the dtype of `t`, as in the official code: a bfloat16 network was trained on rounded times.
    """
    half = dim // 2
    exponents = torch.arange(half, dtype=torch.float32, device=t_B.device) / half
    angles = (1000.0 * t_B).float()[..., None] * torch.exp(-math.log(max_period) * exponents)
    return torch.cat([angles.cos(), angles.sin()], dim=-1)


class MLPEmbedder(nn.Module):
    """Linear, SiLU, Linear on a sinusoidal embedding."""

    def __init__(self, in_dim: int, hidden_size: int) -> None:
        """`in_dim` -> `hidden_size`, without biases."""
        super().__init__()
        self.in_layer = nn.Linear(in_dim, hidden_size, bias=False)
        self.out_layer = nn.Linear(hidden_size, hidden_size, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """(..., in_dim) -> (..., hidden_size)."""
        embedded: Tensor = self.out_layer(F.silu(self.in_layer(x)))
        return embedded


class Modulation(nn.Module):
    """One linear map from the conditioning vector to (shift, scale, gate), once or twice; shared by all blocks."""

    def __init__(self, hidden_size: int, branches: int) -> None:
        """`branches` is 2 for double blocks (attention, MLP) and 1 for single blocks."""
        super().__init__()
        self.branches = branches
        self.lin = nn.Linear(hidden_size, 3 * branches * hidden_size, bias=False)

    def forward(self, vec: Tensor) -> tuple[Shift, ...]:
        """`vec` (B, D), or (B, L, D) for one vector per token -> a triple per branch."""
        out: Tensor = self.lin(F.silu(vec))
        chunks = (out[:, None] if out.ndim == 2 else out).chunk(3 * self.branches, dim=-1)
        return tuple((chunks[i], chunks[i + 1], chunks[i + 2]) for i in range(0, len(chunks), 3))


def modulate(x_BLD: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    """`(1 + scale) LN(x) + shift` with a LayerNorm that has no parameters."""
    return (1 + scale) * F.layer_norm(x_BLD, x_BLD.shape[-1:], eps=1e-6) + shift


class RMSNorm(nn.Module):
    """Root-mean-square norm over one head, eps 1e-6."""

    def __init__(self, dim: int) -> None:
        """One learned scale per channel."""
        super().__init__()
        self.scale = nn.Parameter(torch.ones(dim))

    def forward(self, x: Tensor) -> Tensor:
        """Normalise the last axis in float32; the result has the dtype of `x`."""
        return F.rms_norm(x.float(), self.scale.shape, self.scale.float(), 1e-6).type_as(x)


class QKNorm(nn.Module):
    """The norms of queries and keys of one attention."""

    def __init__(self, dim: int) -> None:
        """`dim` is the head width."""
        super().__init__()
        self.query_norm = RMSNorm(dim)
        self.key_norm = RMSNorm(dim)


class StreamAttention(nn.Module):
    """Projections of one stream into and out of joint attention."""

    def __init__(self, hidden_size: int, num_heads: int) -> None:
        """Fused qkv rows are laid out as (3, heads, head width)."""
        super().__init__()
        self.head_dim = hidden_size // num_heads
        self.qkv = nn.Linear(hidden_size, 3 * hidden_size, bias=False)
        self.norm = QKNorm(self.head_dim)
        self.proj = nn.Linear(hidden_size, hidden_size, bias=False)

    def project(self, x_BLD: Tensor, table: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys (both normalised and rotated) and values, each (B, H, L, head width)."""
        return normalised_qkv(self.qkv(x_BLD), self.norm, self.head_dim, table)


def normalised_qkv(qkv: Tensor, norm: QKNorm, head_dim: int, table: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Split (B, L, 3 D) into heads, normalise queries and keys, then rotate them."""
    q, k, v = (split_heads(part, head_dim) for part in qkv.chunk(3, dim=-1))
    return _rotated(q, norm.query_norm, table), _rotated(k, norm.key_norm, table), v


def _rotated(x_BHLD: Tensor, norm: RMSNorm, table: Tensor) -> Tensor:
    """Normalised, then rotated. A processor that draws does some tokens at a time: they stay in its caches."""
    if x_BHLD.requires_grad or x_BHLD.device.type != "cpu" or x_BHLD.numel() <= _CACHED:
        return rotate_pairs(norm(x_BHLD), table).type_as(x_BHLD)
    out = torch.empty_like(x_BHLD, memory_format=torch.contiguous_format)
    step = max(1, _CACHED * x_BHLD.shape[2] // x_BHLD.numel())
    for start in range(0, x_BHLD.shape[2], step):
        part = slice(start, start + step)
        out[:, :, part] = rotate_pairs(norm(x_BHLD[:, :, part]), table[part])
    return out


def swiglu(x: Tensor) -> Tensor:
    """`silu(first half) x second half`."""
    gate, up = x.chunk(2, dim=-1)
    return F.silu(gate) * up


class SwiGLU(nn.Module):
    """The activation between the two linears of an MLP, as a module so that the linears are numbered 0 and 2."""

    def forward(self, x: Tensor) -> Tensor:
        """(..., 2 M) -> (..., M)."""
        return swiglu(x)


def feed_forward(hidden_size: int, mlp_hidden_size: int) -> nn.Sequential:
    """The MLP of a double block: gate and up fused in `0`, down in `2`."""
    return nn.Sequential(
        nn.Linear(hidden_size, 2 * mlp_hidden_size, bias=False),
        SwiGLU(),
        nn.Linear(mlp_hidden_size, hidden_size, bias=False),
    )


class DoubleStreamBlock(nn.Module):
    """Text and image keep their own weights and meet in one joint attention."""

    def __init__(self, config: TransformerConfig) -> None:
        """Build both streams."""
        super().__init__()
        h = config.hidden_size
        self.img_attn = StreamAttention(h, config.num_heads)
        self.img_mlp = feed_forward(h, config.mlp_hidden_size)
        self.txt_attn = StreamAttention(h, config.num_heads)
        self.txt_mlp = feed_forward(h, config.mlp_hidden_size)

    def forward(
        self,
        img_BLD: Tensor,
        txt_BTD: Tensor,
        img_mod: tuple[Shift, ...],
        txt_mod: tuple[Shift, ...],
        img_table: Tensor,
        txt_table: Tensor,
        cached: KeyValue | None = None,
        bias: Bias = None,
    ) -> tuple[Tensor, Tensor]:
        """Both streams after attention and MLP; `cached` keys and values stand between text and image."""
        img_q, img_k, img_v = self.img_attn.project(modulate(img_BLD, *img_mod[0][:2]), img_table)
        txt_q, txt_k, txt_v = self.txt_attn.project(modulate(txt_BTD, *txt_mod[0][:2]), txt_table)
        k, v = joined((txt_k, txt_v), cached, (img_k, img_v))
        out = attention(torch.cat([txt_q, img_q], dim=2), k, v, bias=bias)
        txt_out, img_out = out.split([txt_BTD.shape[1], img_BLD.shape[1]], dim=1)
        img_BLD = self._finish(img_BLD, img_out, self.img_attn, self.img_mlp, img_mod)
        txt_BTD = self._finish(txt_BTD, txt_out, self.txt_attn, self.txt_mlp, txt_mod)
        return img_BLD, txt_BTD

    def forward_references(self, ref_BRD: Tensor, mod: tuple[Shift, ...], table: Tensor) -> tuple[Tensor, KeyValue]:
        """The image stream over reference tokens that see only one another; also the keys and values to cache."""
        q, k, v = self.img_attn.project(modulate(ref_BRD, *mod[0][:2]), table)
        out = attention(q, k, v)
        return self._finish(ref_BRD, out, self.img_attn, self.img_mlp, mod), (k, v)

    @staticmethod
    def _finish(
        x_BLD: Tensor, attended: Tensor, attn: StreamAttention, mlp: nn.Sequential, mod: tuple[Shift, ...]
    ) -> Tensor:
        (_, _, gate), (mlp_shift, mlp_scale, mlp_gate) = mod
        x_BLD = x_BLD + gate * attn.proj(attended)
        out: Tensor = x_BLD + mlp_gate * mlp(modulate(x_BLD, mlp_shift, mlp_scale))
        return out


class SingleStreamBlock(nn.Module):
    """Attention and MLP side by side over the concatenated sequence, fused into two linears."""

    def __init__(self, config: TransformerConfig) -> None:
        """`linear1` yields q, k, v, gate and up; `linear2` reads attention and MLP."""
        super().__init__()
        h, m = config.hidden_size, config.mlp_hidden_size
        self.hidden_size, self.mlp_width, self.head_dim = h, 2 * m, config.head_dim
        self.linear1 = nn.Linear(h, 3 * h + 2 * m, bias=False)
        self.linear2 = nn.Linear(h + m, h, bias=False)
        self.norm = QKNorm(config.head_dim)

    def forward(
        self,
        x_BLD: Tensor,
        mod: Shift,
        table: Tensor,
        text_length: int,
        cached: KeyValue | None = None,
        bias: Bias = None,
    ) -> Tensor:
        """(B, L, D) -> (B, L, D); `cached` keys and values are inserted after the first `text_length` tokens."""
        q, k, v, mlp = self._project(x_BLD, mod, table)
        if cached is not None:
            k, v = joined(
                (k[:, :, :text_length], v[:, :, :text_length]), cached, (k[:, :, text_length:], v[:, :, text_length:])
            )
        out: Tensor = self.linear2(torch.cat([attention(q, k, v, bias=bias), swiglu(mlp)], dim=-1))
        return x_BLD + mod[2] * out

    def forward_references(self, ref_BRD: Tensor, mod: Shift, table: Tensor) -> tuple[Tensor, KeyValue]:
        """The block over reference tokens that see only one another; also the keys and values to cache."""
        q, k, v, mlp = self._project(ref_BRD, mod, table)
        out = ref_BRD + mod[2] * self.linear2(torch.cat([attention(q, k, v), swiglu(mlp)], dim=-1))
        return out, (k, v)

    def _project(self, x_BLD: Tensor, mod: Shift, table: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        qkv, mlp = self.linear1(modulate(x_BLD, *mod[:2])).split([3 * self.hidden_size, self.mlp_width], dim=-1)
        q, k, v = normalised_qkv(qkv, self.norm, self.head_dim, table)
        return q, k, v, mlp


def joined(txt: KeyValue, cached: KeyValue | None, img: KeyValue) -> KeyValue:
    """Keys and values in the order text, cached references, image. A cache of batch 1 serves every picture."""
    if cached is None:
        return torch.cat([txt[0], img[0]], dim=2), torch.cat([txt[1], img[1]], dim=2)
    batch = txt[0].shape[0]
    middle_k, middle_v = (part.expand(batch, -1, -1, -1) for part in cached)
    return torch.cat([txt[0], middle_k, img[0]], dim=2), torch.cat([txt[1], middle_v, img[1]], dim=2)


class LastLayer(nn.Module):
    """Modulated norm and projection to latent channels. Rows of the modulation are (shift, scale)."""

    def __init__(self, hidden_size: int, out_channels: int) -> None:
        """The SiLU in `adaLN_modulation.0` has no parameters, so the linear is number 1."""
        super().__init__()
        self.linear = nn.Linear(hidden_size, out_channels, bias=False)
        self.adaLN_modulation = nn.Sequential(nn.SiLU(), nn.Linear(hidden_size, 2 * hidden_size, bias=False))

    def forward(self, x_BLD: Tensor, vec: Tensor) -> Tensor:
        """(B, L, D) -> (B, L, C); `vec` is (B, D) or (B, L, D)."""
        out = self.adaLN_modulation(vec)
        shift, scale = (out[:, None] if out.ndim == 2 else out).chunk(2, dim=-1)
        velocity: Tensor = self.linear(modulate(x_BLD, shift, scale))
        return velocity


class Flux2Transformer(nn.Module):
    """Predicts the velocity `noise - data` of latent tokens from noisy tokens, text and references."""

    def __init__(self, config: TransformerConfig) -> None:
        """Build an untrained network of the given shape."""
        super().__init__()
        self.config = config
        h = config.hidden_size
        self.img_in = nn.Linear(config.in_channels, h, bias=False)
        self.time_in = MLPEmbedder(256, h)
        self.guidance_in = MLPEmbedder(256, h) if config.guidance_embed else None
        self.txt_in = nn.Linear(config.context_in_dim, h, bias=False)
        self.double_stream_modulation_img = Modulation(h, branches=2)
        self.double_stream_modulation_txt = Modulation(h, branches=2)
        self.single_stream_modulation = Modulation(h, branches=1)
        self.double_blocks = nn.ModuleList(DoubleStreamBlock(config) for _ in range(config.depth))
        self.single_blocks = nn.ModuleList(SingleStreamBlock(config) for _ in range(config.depth_single_blocks))
        self.final_layer = LastLayer(h, config.in_channels)

    def forward(
        self,
        x_BLC: Tensor,
        x_ids: Tensor,
        txt_BTD: Tensor,
        txt_ids: Tensor,
        timesteps: Tensor,
        guidance_B: Tensor | None = None,
        cache: ReferenceCache | None = None,
        bias: Bias = None,
        watch: Watch = None,
    ) -> Tensor:
        """Velocity (B, L, C) of every token in `x_BLC`.

        `x_ids` (L, 4) and `txt_ids` (T, 4) are positions. `timesteps` is (B,) in [0, 1] with 1 = noise, or (B, L) for
        one time per image token (text then follows the first column's). `guidance_B` is required exactly by models
        that embed it. Without `cache`, references are simply further tokens of `x_BLC` (the caller drops their
        velocities); with it, they are the cached keys and values. `bias` is added to the joint attention logits.
        `watch` is shown the picture's tokens (B, L, D) after each block, with the block's number.
        """
        dtype = x_BLC.dtype
        vec = self.conditioning(timesteps, guidance_B, dtype)
        txt_vec = vec if vec.ndim == 2 else vec[:, 0]
        img_table = self.table(x_ids)
        txt_table = self.table(txt_ids)
        img, txt = self.img_in(x_BLC), self.txt_in(txt_BTD)

        img_mod, txt_mod = self.double_stream_modulation_img(vec), self.double_stream_modulation_txt(txt_vec)
        for index, block in enumerate(self.double_blocks):
            cached = None if cache is None else cache.double[index]
            img, txt = block(img, txt, img_mod, txt_mod, img_table, txt_table, cached, bias)
            if watch is not None:
                watch(index, img)

        text_length = txt.shape[1]
        joint, joint_table = torch.cat([txt, img], dim=1), torch.cat([txt_table, img_table])
        (single_mod,) = self.single_stream_modulation(_per_token(vec, txt_vec, text_length))
        for index, block in enumerate(self.single_blocks):
            cached = None if cache is None else cache.single[index]
            joint = block(joint, single_mod, joint_table, text_length, cached, bias)
            if watch is not None:
                watch(len(self.double_blocks) + index, joint[:, text_length:])
        velocity: Tensor = self.final_layer(joint[:, text_length:], vec)
        return velocity

    def reference_cache(self, ref_BRC: Tensor, ref_ids: Tensor, guidance_B: Tensor | None = None) -> ReferenceCache:
        """Keys and values of clean reference tokens (B, R, C) for every block.

        References are modulated at time 0 and attend only to one another, so this pass needs neither text nor picture
        nor step, and its result may be reused as long as references and weights stay the same.
        """
        vec = self.conditioning(ref_BRC.new_zeros(ref_BRC.shape[0]), guidance_B, ref_BRC.dtype)
        table = self.table(ref_ids)
        ref = self.img_in(ref_BRC)
        mod = self.double_stream_modulation_img(vec)
        (single_mod,) = self.single_stream_modulation(vec)
        double, single = [], []
        for double_block in self.double_blocks:
            assert isinstance(double_block, DoubleStreamBlock)
            ref, pair = double_block.forward_references(ref, mod, table)
            double.append(pair)
        for single_block in self.single_blocks:
            assert isinstance(single_block, SingleStreamBlock)
            ref, pair = single_block.forward_references(ref, single_mod, table)
            single.append(pair)
        return ReferenceCache(tuple(double), tuple(single))

    def conditioning(self, timesteps: Tensor, guidance_B: Tensor | None, dtype: torch.dtype) -> Tensor:
        """The vector that modulates everything: time, plus guidance where the model embeds it. (B, D) or (B, L, D)."""
        if (guidance_B is None) != (self.guidance_in is None):
            needed = "needs" if self.guidance_in is not None else "does not take"
            raise ValueError(f"this transformer {needed} a guidance scale")
        vec: Tensor = self.time_in(timestep_embedding(timesteps.to(dtype)).to(dtype))
        if self.guidance_in is not None and guidance_B is not None:
            guidance: Tensor = self.guidance_in(timestep_embedding(guidance_B.to(dtype)).to(dtype))
            vec = vec + (guidance if vec.ndim == 2 else guidance[:, None])
        return vec

    def table(self, ids_LA: Tensor) -> Tensor:
        """Rotary table of `ids_LA` on the device of the ids."""
        return rotary_table(ids_LA, self.config.axes_dim, self.config.theta)


def _per_token(vec: Tensor, txt_vec: Tensor, text_length: int) -> Tensor:
    """Conditioning of the joint sequence: unchanged if shared, else text's vector before the tokens' own."""
    if vec.ndim == 2:
        return vec
    return torch.cat([txt_vec[:, None].expand(-1, text_length, -1), vec], dim=1)
