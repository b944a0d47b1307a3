"""The language models that read the prompt: Qwen3 and Mistral-3, cut after the last layer whose output is used.

Parameters bear the published names without their prefix (`layers.0.self_attn.q_proj.weight`). Shapes: B batch,
L tokens, D width, H heads.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from licht.model.attention import attention, split_heads
from licht.model.variants import TextConfig, Tower, TowerConfig


class RMSNorm(nn.Module):
    """Root-mean-square norm over the last axis, computed in float32."""

    def __init__(self, dim: int, eps: float) -> None:
        """One learned weight per channel."""
        super().__init__()
        self.weight = nn.Parameter(torch.ones(dim))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        """Normalise, round to the dtype of `x`, then scale: the order in which these models were trained."""
        return self.weight * F.rms_norm(x.float(), x.shape[-1:], eps=self.eps).type_as(x)


def rotate_halves(x_BHLD: Tensor, cos_LD: Tensor, sin_LD: Tensor) -> Tensor:
    """Rotate the pairs (x[i], x[i + D/2])."""
    first, second = x_BHLD.chunk(2, dim=-1)
    return x_BHLD * cos_LD + torch.cat([-second, first], dim=-1) * sin_LD


def rotary_cos_sin(length: int, head_dim: int, theta: float, like: Tensor) -> tuple[Tensor, Tensor]:
    """(L, D) cosines and sines for positions 0 to `length` - 1, both halves of the head alike."""
    exponents = torch.arange(0, head_dim, 2, dtype=torch.float32, device=like.device) / head_dim
    frequencies = 1.0 / theta**exponents
    angles = torch.arange(length, dtype=torch.float32, device=like.device)[:, None] * frequencies
    angles = torch.cat([angles, angles], dim=-1)
    return angles.cos().to(like.dtype), angles.sin().to(like.dtype)


class SelfAttention(nn.Module):
    """Grouped-query causal attention; Qwen3 also normalises queries and keys per head."""

    def __init__(self, config: TowerConfig) -> None:
        """Projections have no bias."""
        super().__init__()
        d, width = config.hidden_size, config.head_dim
        self.head_dim = width
        self.q_proj = nn.Linear(d, config.num_attention_heads * width, bias=False)
        self.k_proj = nn.Linear(d, config.num_key_value_heads * width, bias=False)
        self.v_proj = nn.Linear(d, config.num_key_value_heads * width, bias=False)
        self.o_proj = nn.Linear(config.num_attention_heads * width, d, bias=False)
        normed = config.tower is Tower.QWEN3
        self.q_norm = RMSNorm(width, config.rms_norm_eps) if normed else None
        self.k_norm = RMSNorm(width, config.rms_norm_eps) if normed else None

    def forward(self, x_BLD: Tensor, cos: Tensor, sin: Tensor, mask_B1LL: Tensor) -> Tensor:
        """(B, L, D) -> (B, L, D); `mask_B1LL` is True where a query may look."""
        q, k, v = (split_heads(proj(x_BLD), self.head_dim) for proj in (self.q_proj, self.k_proj, self.v_proj))
        if self.q_norm is not None and self.k_norm is not None:
            q, k = self.q_norm(q), self.k_norm(k)
        q, k = rotate_halves(q, cos, sin), rotate_halves(k, cos, sin)
        out: Tensor = self.o_proj(attention(q, k, v, bias=mask_B1LL, grouped=True))
        return out


class MLP(nn.Module):
    """`down(silu(gate(x)) x up(x))`."""

    def __init__(self, config: TowerConfig) -> None:
        """No biases."""
        super().__init__()
        self.gate_proj = nn.Linear(config.hidden_size, config.intermediate_size, bias=False)
        self.up_proj = nn.Linear(config.hidden_size, config.intermediate_size, bias=False)
        self.down_proj = nn.Linear(config.intermediate_size, config.hidden_size, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """(B, L, D) -> (B, L, D)."""
        out: Tensor = self.down_proj(F.silu(self.gate_proj(x)) * self.up_proj(x))
        return out


class TokenEmbedding(nn.Module):
    """One vector per token id."""

    def __init__(self, vocab_size: int, hidden_size: int) -> None:
        """Start with deviation 0.02.

        Uniform rather than normal: drawing normal numbers for a module without storage makes torch import its
        compiler, a second that every first picture would wait for.
        """
        super().__init__()
        self.weight = nn.Parameter(torch.empty(vocab_size, hidden_size))
        nn.init.uniform_(self.weight, -0.02 * 3**0.5, 0.02 * 3**0.5)

    def forward(self, ids_BL: Tensor) -> Tensor:
        """(B, L) ids -> (B, L, D)."""
        return F.embedding(ids_BL, self.weight)


class DecoderLayer(nn.Module):
    """Attention and MLP, each behind a norm and beside a residual."""

    def __init__(self, config: TowerConfig) -> None:
        """Build one layer."""
        super().__init__()
        self.input_layernorm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.self_attn = SelfAttention(config)
        self.post_attention_layernorm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.mlp = MLP(config)

    def forward(self, x_BLD: Tensor, cos: Tensor, sin: Tensor, mask_B1LL: Tensor) -> Tensor:
        """(B, L, D) -> (B, L, D)."""
        x_BLD = x_BLD + self.self_attn(self.input_layernorm(x_BLD), cos, sin, mask_B1LL)
        out: Tensor = x_BLD + self.mlp(self.post_attention_layernorm(x_BLD))
        return out


class TextTower(nn.Module):
    """Token ids to the stacked hidden states that the transformer reads. Only the layers in use exist."""

    def __init__(self, config: TextConfig) -> None:
        """Build the embedding and the first `config.layers_used` layers; the final norm and head are never needed."""
        super().__init__()
        self.config = config
        tower = config.tower
        self.embed_tokens = TokenEmbedding(tower.vocab_size, tower.hidden_size)
        self.layers = nn.ModuleList(DecoderLayer(tower) for _ in range(config.layers_used))

    def forward(self, ids_BL: Tensor, attended_BL: Tensor) -> Tensor:
        """(B, L) ids and a mask that is True at real tokens -> (B, L, stacked width).

        Padding is hidden from the real tokens but has hidden states of its own, which the transformer was trained to
        see. The vectors of `config.layers` are concatenated per token, the earliest layer first.
        """
        x = self.embed_tokens(ids_BL)
        tower = self.config.tower
        cos, sin = rotary_cos_sin(ids_BL.shape[1], tower.head_dim, tower.rope_theta, x)
        mask_B1LL = causal_mask(attended_BL)
        states = [x] if 0 in self.config.layers else []
        for number, layer in enumerate(self.layers, start=1):
            x = layer(x, cos, sin, mask_B1LL)
            if number in self.config.layers:
                states.append(x)
        return torch.cat(states, dim=-1)


def causal_mask(attended_BL: Tensor) -> Tensor:
    """(B, 1, L, L), True where a query may look: at real tokens up to itself.

    A query before the first real token (padding on the left) may look nowhere; its attention is then zero, as when
    these models are run elsewhere.
    """
    length = attended_BL.shape[1]
    causal = torch.ones(length, length, dtype=torch.bool, device=attended_BL.device).tril()
    return causal & attended_BL[:, None, None, :].bool()
