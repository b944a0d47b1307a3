"""A yes/no question to a language model: does this ask for public figures, or for somebody's protected work?

Needs torch and transformers, where a folder is named; both are imported when the first question is put.
"""

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from licht.core.errors import InvalidSettings
from licht.core.request import Picture
from licht.safety.image_filter import FilterFailed
from licht.safety.plugins import is_plugin, plugin

_INSTRUCTION: Final = (
    "You screen requests to a picture generator. Answer with one word, yes or no. Does the request ask for a real "
    "person who is known to the public, for a character or artwork that somebody owns, or for a brand or its logo?"
)


class Asker:
    """Puts the question, and gives the probability of yes."""

    def __init__(self, source: str) -> None:
        """A folder of a causal language model, or `python:module:function`. Raises `InvalidSettings`."""
        self._function: Callable[..., Any] | None = None
        self._folder = Path(source)
        self._lock = threading.Lock()
        self._loaded: tuple[Any, Any, int, int] | None = None
        if is_plugin(source):
            self._function = plugin(source, "LICHT_QUESTION")
        elif not (self._folder / "config.json").is_file():
            raise InvalidSettings(
                f"LICHT_QUESTION is {source!r}; use the folder of a language model (with config.json) or "
                "python:module:function"
            )

    def __call__(self, prompt: str, picture: Picture | None) -> float | None:
        """The probability of yes about a prompt, or about a picture that came with it; None if it cannot be asked.

        A folder answers about prompts only; a function `(prompt, picture or None)` may answer about both.
        Raises `FilterFailed`.
        """
        try:
            answer = self._function(prompt, picture) if self._function else self._of_model(prompt, picture)
            probability = None if answer is None else float(answer)
        except Exception as error:  # a model may fail in any way, and none of it may open the door
            raise FilterFailed(f"the language model raised {type(error).__name__}") from error
        if probability is not None and not 0 <= probability <= 1:
            raise FilterFailed("the language model gave no probability")
        return probability

    def _of_model(self, prompt: str, picture: Picture | None) -> float | None:
        if picture is not None:
            return None
        import torch

        with self._lock:
            if self._loaded is None:
                self._loaded = self._load()
            tokenizer, model, yes, no = self._loaded
            text = f"{_INSTRUCTION}\n\nRequest: {prompt}\n\nAnswer:"
            if tokenizer.chat_template:
                asked = [{"role": "system", "content": _INSTRUCTION}, {"role": "user", "content": prompt}]
                text = tokenizer.apply_chat_template(asked, tokenize=False, add_generation_prompt=True)
            ids_BL = tokenizer(text, return_tensors="pt").input_ids.to(model.device)
            with torch.inference_mode():
                logits = model(input_ids=ids_BL).logits[0, -1, [yes, no]]
            return float(torch.softmax(logits.float(), 0)[0])

    def _load(self) -> tuple[Any, Any, int, int]:
        import transformers

        # never a name to be fetched, never code from the folder
        options = {"local_files_only": True, "trust_remote_code": False}
        tokenizer = transformers.AutoTokenizer.from_pretrained(self._folder, **options)
        model = transformers.AutoModelForCausalLM.from_pretrained(self._folder, use_safetensors=True, **options).eval()
        yes, no = (tokenizer.encode(word, add_special_tokens=False)[0] for word in ("yes", "no"))
        if yes == no:
            raise ValueError("the tokenizer cannot tell yes from no")
        return tokenizer, model, yes, no
