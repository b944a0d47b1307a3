"""The real vocabulary of Mistral-Small-3, which ships inside the `mistral-common` package.

It is converted to a `tokenizers` file by transformers' own converter, and read by ours; the judge is Mistral's encoder.
"""

import json
from pathlib import Path
from typing import Any

import mistral_common
from mistral_common.protocol.instruct.messages import SystemMessage, UserMessage
from mistral_common.protocol.instruct.request import InstructRequest
from mistral_common.tokens.tokenizers.base import SpecialTokens
from mistral_common.tokens.tokenizers.instruct import InstructTokenizerV7
from mistral_common.tokens.tokenizers.tekken import Tekkenizer
from transformers import PreTrainedTokenizerFast
from transformers.integrations.mistral.tokenizer import MistralConverter

from licht.engine.prompts import DEV_SYSTEM_MESSAGE

VOCABULARY = Path(mistral_common.__file__).parent / "data" / "tekken_240911.json"


def convert(folder: Path, template: str | None) -> None:
    """Save the vocabulary as a tokenizer folder, padding on the left, with a chat template or without one."""
    described = json.loads(VOCABULARY.read_text("utf-8"))
    # files of this age leave the marks to the library, later ones list them as the converter wants them
    described["special_tokens"] = [
        {"rank": mark["rank"], "token_str": SpecialTokens(mark["token_str"]).value, "is_control": True}
        for mark in Tekkenizer.DEPRECATED_SPECIAL_TOKENS
    ]
    folder.mkdir()
    source = folder / "described.json"
    source.write_text(json.dumps(described), "utf-8")
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=MistralConverter(vocab_file=str(source)).converted(),
        unk_token="<unk>",
        bos_token="<s>",
        eos_token="</s>",
        pad_token="<pad>",
        padding_side="left",
        chat_template=template,
    )
    source.unlink()
    tokenizer.save_pretrained(folder)


class MistralEncoder:
    """Mistral's own way from a prompt to ids."""

    def __init__(self) -> None:
        """Read the vocabulary."""
        self._tokenizer = InstructTokenizerV7(Tekkenizer.from_file(VOCABULARY))

    def ids(self, prompt: str) -> list[int]:
        """Ids of the dev template around a prompt, neither padded nor cut."""
        messages = [SystemMessage(content=DEV_SYSTEM_MESSAGE), UserMessage(content=prompt)]
        request: Any = InstructRequest(messages=messages)
        return list(self._tokenizer.encode_instruct(request).tokens)
