"""From a prompt to token ids: templates, padding, truncation."""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, NoReturn

import torch
from tokenizers import Regex, Tokenizer, normalizers, pre_tokenizers
from torch import Tensor

from licht.checkpoint.reader import first_line, read_json
from licht.core.errors import InvalidCheckpoint
from licht.model.variants import TextConfig, Tower

DEV_SYSTEM_MESSAGE = (
    "You are an AI that reasons about image descriptions. You give structured responses focusing on object "
    "relationships, object\nattribution and actions without speculation."
)
_KLEIN_TEMPLATE = "<|im_start|>user\n{prompt}<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n"
_DEV_TEMPLATE = "<s>[SYSTEM_PROMPT]" + DEV_SYSTEM_MESSAGE + "[/SYSTEM_PROMPT][INST]{prompt}[/INST]"
_TEMPLATES: Mapping[Tower, str] = {Tower.QWEN3: _KLEIN_TEMPLATE, Tower.MISTRAL3: _DEV_TEMPLATE}
_PAD_TOKENS: Mapping[Tower, str] = {Tower.QWEN3: "<|endoftext|>", Tower.MISTRAL3: "<pad>"}
_TEMPLATE_TOKENS = ("bos_token", "eos_token", "unk_token", "pad_token")
_QWEN2_SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_PADDING_SIDES: Mapping[Tower, str] = {Tower.QWEN3: "right", Tower.MISTRAL3: "left"}


@dataclass(frozen=True, slots=True)
class PromptTokens:
    """Token ids (B, L), a mask (B, L) that is True at real tokens, and how long each prompt was before it was cut."""

    ids_BL: Tensor
    attended_BL: Tensor
    lengths: tuple[int, ...]


class PromptTokenizer:
    """Wraps prompts in a template and turns them into ids of one fixed length."""

    def __init__(self, folder: Path, text: TextConfig, template: str | None = None) -> None:
        """Read `tokenizer.json` in `folder`.

        The template is `template` if given (with `{prompt}` in it), else the folder's own chat template, else the
        official one of the tower. Raises `InvalidCheckpoint` for an unusable tokenizer or template.
        """
        self.length = text.length
        self._tower = text.tower.tower
        settings = read_json(folder / "tokenizer_config.json") if (folder / "tokenizer_config.json").is_file() else {}
        self._tokenizer = _read_tokenizer(folder, settings)
        self._render = _renderer(folder, settings, template, self._tower)
        self._side = settings.get("padding_side") or _PADDING_SIDES[self._tower]
        if self._side not in ("left", "right"):
            raise InvalidCheckpoint(f"{folder}: padding_side {self._side!r} is unknown; expected left or right")
        self._vocab_size = text.tower.vocab_size
        self._pad_id = self._pad(settings)
        if self._tokenizer.get_vocab_size() > text.tower.vocab_size:
            raise InvalidCheckpoint(
                f"{folder} has {self._tokenizer.get_vocab_size()} tokens, its text model {text.tower.vocab_size}; "
                "use the tokenizer of that text model"
            )

    def __call__(self, prompts: list[str]) -> PromptTokens:
        """Tokens of `prompts`, each padded or cut to `length`."""
        ids_BL = torch.full((len(prompts), self.length), self._pad_id)
        attended_BL = torch.zeros(len(prompts), self.length, dtype=torch.bool)
        lengths = []
        for row, prompt in enumerate(prompts):
            ids = self._tokenizer.encode(self.text(prompt), add_special_tokens=False).ids
            if ids and max(ids) >= self._vocab_size:
                raise InvalidCheckpoint(
                    f"the tokenizer gives token {max(ids)}, the text model knows {self._vocab_size}; "
                    "use the tokenizer of that text model"
                )
            lengths.append(len(ids))
            kept = ids[: self.length]
            place = slice(self.length - len(kept), None) if self._side == "left" else slice(0, len(kept))
            ids_BL[row, place] = torch.tensor(kept, dtype=torch.long)
            attended_BL[row, place] = True
        return PromptTokens(ids_BL, attended_BL, tuple(lengths))

    def text(self, prompt: str) -> str:
        """The prompt inside its template, as it is tokenised."""
        # the literal image token would be read as a picture that is not there
        return self._render(prompt.replace("[IMG]", "") if self._tower is Tower.MISTRAL3 else prompt)

    def _pad(self, settings: Mapping[str, Any]) -> int:
        named = settings.get("pad_token")
        content = _PAD_TOKENS[self._tower] if named is None else _content(named)
        pad_id = self._tokenizer.token_to_id(content)
        if pad_id is None or pad_id >= self._vocab_size:
            raise InvalidCheckpoint(f"the tokenizer has no padding token {content!r}; check tokenizer_config.json")
        return int(pad_id)


def _read_tokenizer(folder: Path, settings: Mapping[str, Any]) -> Tokenizer:
    path = folder / "tokenizer.json"
    try:
        tokenizer = Tokenizer.from_file(str(path))
    except Exception as error:  # the library raises plain Exception for every fault
        raise InvalidCheckpoint(f"{path} is not a usable tokenizer ({first_line(error)}); copy it again") from error
    if str(settings.get("tokenizer_class", "")).startswith("Qwen2Tokenizer"):
        # this class, where it is known, splits text by its own rule whatever tokenizer.json says; so must we
        tokenizer.normalizer = normalizers.NFC()
        tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
            [
                pre_tokenizers.Split(Regex(_QWEN2_SPLIT), behavior="isolated"),
                pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
            ]
        )
    tokenizer.no_padding()
    tokenizer.no_truncation()
    return tokenizer


class _Filled:
    """A template in which `{prompt}` is replaced literally: prompts may hold braces."""

    def __init__(self, template: str) -> None:
        self._before, self._after = template.split("{prompt}")

    def __call__(self, prompt: str) -> str:
        return self._before + prompt + self._after


class _ChatTemplate:
    """A tokenizer's own chat template, rendered as its library would: one user turn, no thinking."""

    def __init__(self, source: str, settings: Mapping[str, Any], tower: Tower) -> None:
        # imported here: only folders with a template of their own need it
        from jinja2.ext import loopcontrols
        from jinja2.sandbox import ImmutableSandboxedEnvironment

        self._tower = tower
        self._common: dict[str, Any] = {"tools": None, "documents": None}
        self._common |= {name: _content(settings.get(name)) for name in _TEMPLATE_TOKENS}
        environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True, extensions=[loopcontrols])
        # what templates may call, as transformers has it: Mistral's own needs the first two
        environment.globals["raise_exception"] = _raise_exception
        environment.globals["strftime_now"] = _strftime_now
        environment.filters["tojson"] = _to_json
        with _template_errors():
            self._template = environment.from_string(source)
        self("")

    def __call__(self, prompt: str) -> str:
        given: dict[str, Any] = {
            "messages": [{"role": "user", "content": prompt}],
            "add_generation_prompt": True,
            "enable_thinking": False,
        }
        if self._tower is Tower.MISTRAL3:
            turns = [_turn("system", DEV_SYSTEM_MESSAGE), _turn("user", prompt)]
            given = {"messages": turns, "add_generation_prompt": False}
        with _template_errors():
            text = self._template.render(given | self._common)
            text.encode("utf-8")  # half a character, which a template can spell, is no text
        return text


def _raise_exception(message: str) -> NoReturn:
    raise ValueError(message)


def _strftime_now(pattern: str) -> str:
    return datetime.now().astimezone().strftime(pattern)


def _to_json(value: object, ensure_ascii: bool = False, indent: int | None = None) -> str:
    """JSON as it is: the filter that comes with Jinja escapes it for web pages."""
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent)


@contextmanager
def _template_errors() -> Iterator[None]:
    """A template is a program from a file: whatever it raises is the file's fault."""
    try:
        yield
    except Exception as error:
        raise InvalidCheckpoint(
            f"the chat template of the tokenizer cannot be used ({first_line(error)}); "
            "repair it, or put a template into licht.json"
        ) from error


def _turn(role: str, text: str) -> dict[str, Any]:
    return {"role": role, "content": [{"type": "text", "text": text}]}


def _content(token: object) -> str:
    """The text of a special token, which files give as a string or as an object; "" if there is none."""
    content = token.get("content") if isinstance(token, dict) else token
    return content if isinstance(content, str) else ""


def _renderer(
    folder: Path, settings: Mapping[str, Any], template: str | None, tower: Tower
) -> "_Filled | _ChatTemplate":
    if template is not None:
        if template.count("{prompt}") != 1:
            raise InvalidCheckpoint(f"the template {template!r} must hold {{prompt}} exactly once")
        return _Filled(template)
    path = folder / "chat_template.jinja"
    try:
        source = path.read_text("utf-8") if path.is_file() else settings.get("chat_template")
    except (OSError, ValueError) as error:
        raise InvalidCheckpoint(f"{path} cannot be read ({first_line(error)}); copy it again") from error
    return _ChatTemplate(source, settings, tower) if isinstance(source, str) else _Filled(_TEMPLATES[tower])
