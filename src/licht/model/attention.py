"""The one place where attention is computed, so that a kernel is chosen once for every network.

Shapes: B batch, H heads, L query tokens, S key tokens, D head width.
"""

import torch
import torch.nn.functional as F
from torch import Tensor


def attention(
    q_BHLD: Tensor, k_BHSD: Tensor, v_BHSD: Tensor, *, bias: Tensor | None = None, grouped: bool = False
) -> Tensor:
    """Softmax attention, heads merged: (B, L, H x D).

    `bias` is added to the logits (broadcast to B, H, L, S) or, if boolean, keeps the pairs that are True. `grouped`
    allows fewer key heads than query heads (each key head serves a run of query heads).
    """
    out_BHLD = F.scaled_dot_product_attention(q_BHLD, k_BHSD, v_BHSD, attn_mask=bias, enable_gqa=grouped)
    return out_BHLD.transpose(1, 2).flatten(2)


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
