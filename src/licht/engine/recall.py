"""Stages that remember: prompts, pictures and references that were encoded before are not encoded again."""

from collections.abc import Callable, Mapping, Sequence
from functools import cached_property

from torch import Tensor

from licht.checkpoint.folder import ModelFiles
from licht.checkpoint.load import Placement
from licht.core.request import LoraUse, Picture
from licht.engine.cache import CacheChoice, TensorCache, arithmetic, digest_of, key_of, weights_identity
from licht.engine.prompts import PromptTokens
from licht.engine.stages import ReferenceTokens
from licht.model.transformer import KeyValue, ReferenceCache

_ONE = "tensor"


class Recall:
    """One cache for all that one engine encodes. `compute` is asked for whatever is not there."""

    def __init__(self, files: ModelFiles, placement: Placement, choice: CacheChoice) -> None:
        """Nothing is read before it is needed."""
        self._files = files
        self._placement = placement
        self._off = choice.memory_bytes == 0 and choice.folder is None
        self.cache = TensorCache(choice)

    def prompt(self, tokens: PromptTokens, compute: Callable[[], Tensor]) -> Tensor:
        """Stacked hidden states of one tokenised prompt."""
        if self._off:
            return compute()
        text = digest_of(tokens.ids_BL, tokens.attended_BL)
        return self._tensor(key_of("prompt", text, self._files.variant.text, self._tower, self._here), compute)

    def latents(self, picture: Picture, banded: bool, compute: Callable[[], Tensor]) -> Tensor:
        """Latents of one prepared picture."""
        if self._off:
            return compute()
        config = self._files.variant.autoencoder
        key = key_of("latents", picture.content_hash(), banded, config, self._autoencoder, self._here)
        return self._tensor(key, compute)

    def references(
        self,
        references: ReferenceTokens,
        guidance: float | None,
        loras: Sequence[LoraUse],
        compute: Callable[[], ReferenceCache],
    ) -> ReferenceCache:
        """Keys and values of references, in their order and at their places. Strengths play no part in them."""
        if self._off:
            return compute()
        tokens = digest_of(references.tokens_1RC, references.ids)
        adapters = tuple((_lora_identity(use), use.strength, use.allow_partial) for use in loras)
        config = self._files.variant.transformer
        key = key_of("references", tokens, guidance, adapters, config, self._transformer, self._here)
        found = self.cache.get(key)
        if found is not None:
            return _unpacked(found, self._placement)
        made = compute()
        self.cache.put(key, _packed(made))
        return made

    def _tensor(self, key: str, compute: Callable[[], Tensor]) -> Tensor:
        found = self.cache.get(key)
        if found is not None:
            return found[_ONE].to(self._placement.device)
        made = compute()
        self.cache.put(key, {_ONE: made})
        return made

    @cached_property
    def _here(self) -> str:
        return arithmetic(self._placement)

    @cached_property
    def _tower(self) -> str:
        return weights_identity(self._files.tower.paths)

    @cached_property
    def _autoencoder(self) -> str:
        return weights_identity(self._files.autoencoder.paths)

    @cached_property
    def _transformer(self) -> str:
        return weights_identity(self._files.transformer.paths)


def _lora_identity(use: LoraUse) -> tuple[str, int, int]:
    path = use.path.expanduser().resolve()
    status = path.stat()
    return str(path), status.st_mtime_ns, status.st_size


def _packed(made: ReferenceCache) -> dict[str, Tensor]:
    pairs = {"double": made.double, "single": made.single}
    return {
        f"{blocks}.{number}.{part}": tensor
        for blocks, found in pairs.items()
        for number, pair in enumerate(found)
        for part, tensor in zip("kv", pair, strict=True)
    }


def _unpacked(found: Mapping[str, Tensor], placement: Placement) -> ReferenceCache:
    def pairs(blocks: str) -> tuple[KeyValue, ...]:
        count = sum(name.startswith(f"{blocks}.") for name in found) // 2
        device = placement.device
        return tuple(
            (found[f"{blocks}.{number}.k"].to(device), found[f"{blocks}.{number}.v"].to(device))
            for number in range(count)
        )

    return ReferenceCache(pairs("double"), pairs("single"))
