"""A small byte-level BPE tokenizer for the captions of the rendered world."""

import json
import re
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import torch
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

from licht.training.files import text_digest

END, START = "<|endoftext|>", "<|im_start|>"
SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
"""How the Qwen2 tokenizer class splits text; it does so whatever a folder says, so we train with it."""
_UPPER_CASE = re.compile(r"[A-Z]+")


def train_tokenizer(captions: Iterable[str], vocab_size: int) -> Tokenizer:
    """Learn merges from `captions`, upper-case letters left out: quoted words to be drawn fall into letters."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(SPLIT), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=[END, START],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator((_UPPER_CASE.sub(" ", caption) for caption in captions), trainer)
    return tokenizer


def save_tokenizer(tokenizer: Tokenizer, folder: Path) -> None:
    """Write the folder that both Licht and transformers read: tokenizer, its settings, the one-turn template."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "tokenizer.json").write_text(tokenizer.to_str(pretty=True), "utf-8")
    settings = {
        "tokenizer_class": "Qwen2Tokenizer",
        "eos_token": END,
        "pad_token": END,
        "bos_token": None,
        "unk_token": None,
        "extra_special_tokens": [START],
        "model_max_length": 2**30,
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(settings, indent=2) + "\n", "utf-8")
    (folder / "chat_template.jinja").write_text(START + "{{ messages[0]['content'] }}", "utf-8")


class CaptionEncoder:
    """Captions to padded rows of ids, as the engine's tokenizer makes them."""

    def __init__(self, tokenizer: Tokenizer, length: int) -> None:
        """Pad and cut to `length` tokens."""
        self._tokenizer = tokenizer
        self.length = length
        pad = tokenizer.token_to_id(END)
        if pad is None:
            raise ValueError(f"the tokenizer has no {END}")
        self.pad_id = int(pad)

    def __call__(self, captions: list[str]) -> tuple[np.ndarray, int]:
        """(rows, length) uint16 ids, and how many captions had to be cut."""
        rows = np.full((len(captions), self.length), self.pad_id, dtype=np.uint16)
        cut = 0
        for row, encoding in zip(rows, self._tokenizer.encode_batch([START + c for c in captions]), strict=True):
            ids = encoding.ids[: self.length]
            cut += len(encoding.ids) > self.length
            row[: len(ids)] = ids
        return rows, cut

    @property
    def digest(self) -> str:
        """The same for the same tokenizer, wherever its file lies."""
        return text_digest(self._tokenizer.to_str())

    def attended(self, ids: torch.Tensor) -> torch.Tensor:
        """True at real tokens: padding only ever follows them."""
        return ids != self.pad_id
