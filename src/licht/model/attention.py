"""The one place where attention is computed, so that a kernel is chosen once for every network.

Shapes: B batch, H heads, L query tokens, S key tokens, D head width.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor


@dataclass(frozen=True, slots=True)
class KeyBias:
    """What is added to the logits of each key, `logits_S`, for the first `queries` queries; the others see none of it.

    One number a key: a matrix of all pairs would take gigabytes where a picture has many references.
    """

    logits_S: Tensor
    queries: int


Bias = Tensor | KeyBias | None
"""What can be added to the logits of an attention."""

_SMALL = 2**20
"""Pairs of tokens whose weights may lie in memory at once, for each head of each picture."""


def attention(q_BHLD: Tensor, k_BHSD: Tensor, v_BHSD: Tensor, *, bias: Bias = None, grouped: bool = False) -> Tensor:
    """Softmax attention, heads merged: (B, L, H x D).

    `bias` is added to the logits (a tensor is broadcast to B, H, L, S) or, if boolean, keeps the pairs that are True.
    `grouped` allows fewer key heads than query heads (each key head serves a run of query heads).
    """
    if isinstance(bias, KeyBias):
        biased_BHLD, plain_BHLD = q_BHLD[:, :, : bias.queries], q_BHLD[:, :, bias.queries :]
        row_11LS = bias.logits_S.to(q_BHLD.dtype).expand(1, 1, biased_BHLD.shape[2], -1)
        out_BLW = attention(biased_BHLD, k_BHSD, v_BHSD, bias=row_11LS, grouped=grouped)
        if not plain_BHLD.shape[2]:
            return out_BLW
        return torch.cat([out_BLW, attention(plain_BHLD, k_BHSD, v_BHSD, grouped=grouped)], dim=1)
    pairs = q_BHLD.shape[2] * k_BHSD.shape[2]
    if q_BHLD.requires_grad and q_BHLD.device.type == "cpu" and pairs <= _SMALL:
        out_BHLD = _with_quick_gradients(q_BHLD, k_BHSD, v_BHSD, bias)
    else:
        out_BHLD = F.scaled_dot_product_attention(q_BHLD, k_BHSD, v_BHSD, attn_mask=bias, enable_gqa=grouped)
    return out_BHLD.transpose(1, 2).flatten(2)


def _with_quick_gradients(q_BHLD: Tensor, k_BHSD: Tensor, v_BHSD: Tensor, bias: Tensor | None) -> Tensor:
    """The same in single steps: on CPUs the fused kernel's backward pass takes twelve times its forward pass."""
    groups = q_BHLD.shape[1] // k_BHSD.shape[1]
    if groups > 1:
        k_BHSD, v_BHSD = (tensor.repeat_interleave(groups, dim=1) for tensor in (k_BHSD, v_BHSD))
    logits_BHLS = (q_BHLD * q_BHLD.shape[-1] ** -0.5) @ k_BHSD.transpose(-1, -2)
    if bias is not None and bias.dtype == torch.bool:
        logits_BHLS = logits_BHLS.masked_fill(~bias, float("-inf"))
    elif bias is not None:
        logits_BHLS = logits_BHLS + bias
    weights_BHLS = logits_BHLS.softmax(-1, dtype=torch.float32)
    out_BHLD: Tensor = weights_BHLS.to(v_BHSD.dtype) @ v_BHSD
    return out_BHLD


def split_heads(x_BLW: Tensor, head_dim: int) -> Tensor:
    """(B, L, H x D) -> (B, H, L, D)."""
    x_BLHD: Tensor = x_BLW.unflatten(-1, (-1, head_dim))
    return x_BLHD.transpose(1, 2)


def rotate_pairs(x_BHLD: Tensor, table_LD2: Tensor) -> Tensor:
    """Rotate the interleaved pairs (x[2i], x[2i+1]) by the angles in `table_LD2`, a complex (L, D/2) tensor.

    Computed in float32 and cast back, as in the official code.
    """
    pairs = torch.view_as_complex(x_BHLD.float().unflatten(-1, (-1, 2)).contiguous())
    return torch.view_as_real(pairs * table_LD2).flatten(-2).type_as(x_BHLD)
