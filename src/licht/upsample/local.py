"""Upsampling with dev's own language model: all of its layers and, for references, its vision tower.

It is a stage of its own. The text tower that encodes prompts is cut after the last layer used and has no head, so the
whole model is loaded with `transformers`, used and let go of before anything is drawn.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from licht.core.errors import InvalidCheckpoint, NotAvailable
from licht.core.request import Picture
from licht.upsample.ask import MAX_NEW_TOKENS, TEMPERATURE
from licht.upsample.beside import beside

if TYPE_CHECKING:
    import torch


class LocalUpsampler:
    """The Mistral model in a text encoder folder; the weights are read when it is first asked."""

    def __init__(self, text_encoder: Path, processor: Path, device: str, seed: int = 0) -> None:
        """`processor` is the folder of the tokenizer and of what prepares pictures. Raises `NotAvailable`."""
        self._check(text_encoder)
        self._text_encoder, self._processor_folder = text_encoder, processor
        self._device, self._seed = device, seed
        self._model: Any = None
        self._processor: Any = None

    @staticmethod
    def _check(text_encoder: Path) -> None:
        try:
            kind = json.loads((text_encoder / "config.json").read_text("utf-8")).get("model_type")
        except (OSError, ValueError, AttributeError):
            kind = None
        if kind != "mistral3":
            raise NotAvailable(
                f"the text encoder in {text_encoder} is no language model that can upsample prompts, only dev's is; "
                "name a chat endpoint with --upsample-with URL, or the folder of a dev model",
                field="upsample_with",
            )

    def close(self) -> None:
        """Let go of the model."""
        self._model = self._processor = None

    def answer(self, system: str, prompt: str, pictures: Sequence[Picture]) -> str:
        """The model's answer, sampled with the seed. Raises `NotAvailable`, `InvalidCheckpoint`."""
        import torch

        self._load()
        inputs = self._inputs(system, prompt, pictures)
        devices = [self._model.device] if self._model.device.type == "cuda" else []
        with torch.random.fork_rng(devices), torch.inference_mode():
            torch.manual_seed(self._seed)
            ids = self._model.generate(**inputs, max_new_tokens=MAX_NEW_TOKENS, do_sample=True, temperature=TEMPERATURE)
        written = ids[0, inputs["input_ids"].shape[1] :]
        return str(self._processor.tokenizer.decode(written, skip_special_tokens=True)).strip()

    def _inputs(self, system: str, prompt: str, pictures: Sequence[Picture]) -> "dict[str, torch.Tensor]":
        content: list[dict[str, Any]] = [{"type": "text", "text": prompt.replace("[IMG]", "")}]
        if pictures:
            content.insert(0, {"type": "image", "image": beside(pictures)})
        turns = [
            {"role": "system", "content": [{"type": "text", "text": system}]},
            {"role": "user", "content": content},
        ]
        inputs = self._processor.apply_chat_template(
            turns, add_generation_prompt=True, tokenize=True, return_dict=True, return_tensors="pt"
        )
        moved = {name: value.to(self._model.device) for name, value in inputs.items() if hasattr(value, "to")}
        if "pixel_values" in moved:
            moved["pixel_values"] = moved["pixel_values"].to(self._model.dtype)
        return moved

    def _load(self) -> None:
        if self._model is not None:
            return
        try:
            import torch
            from transformers import AutoProcessor, Mistral3ForConditionalGeneration

            self._processor = AutoProcessor.from_pretrained(self._processor_folder, local_files_only=True)
            model: Any = Mistral3ForConditionalGeneration.from_pretrained(
                self._text_encoder, dtype=torch.bfloat16, local_files_only=True, use_safetensors=True
            )
        except ImportError as error:
            raise NotAvailable(
                "upsampling with dev's language model needs the packages transformers and torchvision; install "
                "lichtung[golden], or name a chat endpoint with --upsample-with URL",
                field="upsample_with",
            ) from error
        except Exception as error:  # the library raises whatever it likes about files
            raise InvalidCheckpoint(
                f"the language model in {self._text_encoder} or its processor in {self._processor_folder} cannot be "
                "read; copy both folders again",
                field="upsample_with",
            ) from error
        self._model = model.to(self._device).eval()
