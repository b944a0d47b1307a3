"""Which language model writes prompts out: an endpoint, the folder of a dev model, or the model's own."""

import os
from dataclasses import dataclass
from pathlib import Path

from licht.core.errors import InvalidRequest
from licht.upsample.chat import KEY_VARIABLE, ChatUpsampler
from licht.upsample.local import LocalUpsampler


@dataclass(frozen=True, slots=True)
class Own:
    """The language model that a picture model has itself, if it has one."""

    text_encoder: Path
    processor: Path
    device: str


def open_upsampler(
    upsample_with: str | Path | None, endpoint_model: str, own: Own, seed: int
) -> ChatUpsampler | LocalUpsampler:
    """The language model that was named: an endpoint's address, a dev model's folder, or (None) the model's `own`.

    `endpoint_model` is what an endpoint calls the model; its key stands in `LICHT_UPSAMPLE_KEY`. Raises `NotAvailable`
    for a folder without a language model that can write, `InvalidRequest` for what is no address.
    """
    if upsample_with is not None and not isinstance(upsample_with, str | Path):
        raise InvalidRequest(
            f"upsample_with is a {type(upsample_with).__name__}; use the address of an endpoint, or a folder",
            field="upsample_with",
        )
    if isinstance(upsample_with, str) and "://" in upsample_with:
        return ChatUpsampler(upsample_with, endpoint_model, os.environ.get(KEY_VARIABLE))
    text_encoder, processor = own.text_encoder, own.processor
    if upsample_with is not None:
        folder = Path(upsample_with).expanduser()
        text_encoder, processor = folder / "text_encoder", folder / "tokenizer"
    return LocalUpsampler(text_encoder, processor, own.device, seed)
