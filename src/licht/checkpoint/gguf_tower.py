"""Language models in GGUF files: llama.cpp's names, arrangement and settings, as those that our towers have."""

import re
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Final

import torch
from torch import Tensor

from licht.checkpoint.gguf_file import GgufSource
from licht.checkpoint.reader import TensorSource
from licht.core.errors import InvalidCheckpoint
from licht.quant.gguf_blocks import GgufLinear
from licht.quant.linear import QuantisedLinear

_MARK: Final = "token_embd.weight"
_WHOLE: Final = MappingProxyType({"token_embd": "model.embed_tokens", "output_norm": "model.norm", "output": "lm_head"})
_IN_LAYER: Final = MappingProxyType(
    {
        "attn_norm": "input_layernorm",
        "attn_q": "self_attn.q_proj",
        "attn_k": "self_attn.k_proj",
        "attn_v": "self_attn.v_proj",
        "attn_output": "self_attn.o_proj",
        "attn_q_norm": "self_attn.q_norm",
        "attn_k_norm": "self_attn.k_norm",
        "ffn_norm": "post_attention_layernorm",
        "ffn_gate": "mlp.gate_proj",
        "ffn_up": "mlp.up_proj",
        "ffn_down": "mlp.down_proj",
    }
)
_KINDS: Final = MappingProxyType({"qwen3": "qwen3", "llama": "mistral", "mistral3": "mistral3"})
"""The architecture in the file -> the model type of a config.json."""
_INTERLEAVED: Final = ("llama", "mistral3")
"""Architectures whose rows of queries and keys llama.cpp stores so that the two halves of each rotated pair are
neighbours."""
_LAYER: Final = re.compile(r"blk\.(\d{1,4})\.([a-z_]+)\.weight")
_SETTINGS: Final = MappingProxyType(
    {
        "hidden_size": "embedding_length",
        "intermediate_size": "feed_forward_length",
        "num_hidden_layers": "block_count",
        "num_attention_heads": "attention.head_count",
        "num_key_value_heads": "attention.head_count_kv",
        "head_dim": "attention.key_length",
        "rope_theta": "rope.freq_base",
        "rms_norm_eps": "attention.layer_norm_rms_epsilon",
    }
)


def is_tower(source: GgufSource) -> bool:
    """Whether a GGUF file holds a language model."""
    return _MARK in source


class GgufTower(TensorSource):
    """A language model in a GGUF file, under the names and in the arrangement that it was published in."""

    def __init__(self, source: GgufSource) -> None:
        """Raises `InvalidCheckpoint` for an architecture or a tensor that is unknown."""
        self.paths, self.metadata = source.paths, source.metadata
        self._source = source
        self._architecture = str(source.said("general.architecture"))
        if self._architecture not in _KINDS:
            raise InvalidCheckpoint(
                f"{source.place} holds a language model of the architecture {self._architecture!r}; "
                f"text encoders are {', '.join(_KINDS)}"
            )
        self._names = {self._published(name): name for name in source}
        self._infos = {ours: source.infos[theirs] for ours, theirs in self._names.items()}

    @property
    def memory_bytes(self) -> int:
        """Bytes as stored."""
        return self._source.memory_bytes

    @property
    def kinds(self) -> list[str]:
        """The format of every tensor, as ggml calls it."""
        return self._source.kinds

    @property
    def config(self) -> Mapping[str, Any]:
        """What a config.json would say."""
        said = {key: self._source.said(f"{self._architecture}.{name}") for key, name in _SETTINGS.items()}
        scaling = self._source.said(f"{self._architecture}.rope.scaling.type")
        known: dict[str, Any] = {key: value for key, value in said.items() if value is not None}
        known["rms_norm_eps"] = float(f"{known.get('rms_norm_eps', 0):.6g}")  # it is stored in single precision
        known["model_type"] = _KINDS[self._architecture]
        known["vocab_size"] = self._infos["model.embed_tokens.weight"].shape[0]
        if scaling not in (None, "none"):
            known["rope_scaling"] = {"rope_type": scaling}
        return known

    def tensor(self, name: str) -> Tensor:
        """A tensor; one in a block format is dequantised to bfloat16."""
        tensor = self._source.tensor(self._names[name])
        rows = self._order(name)
        return tensor if rows is None else tensor[rows]

    def stored(self, name: str) -> Tensor:
        """What lies in the file under this name."""
        return self._source.stored(self._names[name])

    def layer(self, name: str, dtype: torch.dtype) -> QuantisedLinear | None:
        """A matrix in a block format as a layer, None for a plain tensor."""
        layer, rows = self._source.layer(self._names[name], dtype), self._order(name)
        if rows is None or not isinstance(layer, GgufLinear):
            return layer
        return GgufLinear(layer.raw[rows], layer.name, dtype)

    def _order(self, name: str) -> Tensor | None:
        """The rows of queries or keys in the published order: first halves of all pairs of a head, then second ones."""
        heads = {"q_proj.weight": "attention.head_count", "k_proj.weight": "attention.head_count_kv"}
        kind = name.rpartition("self_attn.")[2]
        if self._architecture not in _INTERLEAVED or kind not in heads:
            return None
        count, info = self._source.said(f"{self._architecture}.{heads[kind]}"), self._infos[name]
        if not isinstance(count, int) or count < 1 or info.shape[0] % (2 * count):
            raise InvalidCheckpoint(
                f"{self.place} has {info.shape[0]} rows in {self._names[name]} for {count!r} heads; it is damaged"
            )
        return torch.arange(info.shape[0]).view(count, -1, 2).transpose(1, 2).flatten()

    def _published(self, name: str) -> str:
        match = _LAYER.fullmatch(name)
        if match is not None and match[2] in _IN_LAYER:
            return f"model.layers.{int(match[1])}.{_IN_LAYER[match[2]]}.weight"
        whole = _WHOLE.get(name.removesuffix(".weight"))
        if whole is None:
            raise InvalidCheckpoint(
                f"{self.place} has the tensor {name}, which no Qwen3 or Mistral text encoder has; use one of those"
            )
        return f"{whole}.weight"
