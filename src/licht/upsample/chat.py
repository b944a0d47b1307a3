"""Upsampling through any endpoint that speaks the OpenAI chat protocol, on this machine or elsewhere."""

import base64
import io
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import urlsplit

import httpx

from licht.core.errors import EndpointFailed, InvalidRequest
from licht.core.request import Picture
from licht.upsample.ask import MAX_NEW_TOKENS, TEMPERATURE
from licht.upsample.beside import beside

KEY_VARIABLE: Final = "LICHT_UPSAMPLE_KEY"
_MAX_ANSWER_BYTES: Final = 2**20


@dataclass(frozen=True, slots=True)
class ChatUpsampler:
    """Asks `model` at `url`, such as http://localhost:11434/v1; `key` goes along as a bearer token."""

    url: str
    model: str
    key: str | None = field(default=None, repr=False)
    timeout_s: float = 120.0

    def __post_init__(self) -> None:
        parts = urlsplit(self.url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise InvalidRequest(
                f"{self.url!r} is no address of a chat endpoint; use one such as http://localhost:11434/v1",
                field="upsample_with",
            )

    def close(self) -> None:
        """Nothing is held."""

    def answer(self, system: str, prompt: str, pictures: Sequence[Picture]) -> str:
        """The model's answer. Raises `EndpointFailed`."""
        body = {
            "model": self.model,
            "messages": [
                {"role": "system", "content": system},
                {"role": "user", "content": _content(prompt, pictures)},
            ],
            "temperature": TEMPERATURE,
            "max_tokens": MAX_NEW_TOKENS,
        }
        headers = {"Authorization": f"Bearer {self.key}"} if self.key else {}
        address = f"{self.url.rstrip('/').removesuffix('/chat/completions')}/chat/completions"
        until = time.monotonic() + self.timeout_s
        try:
            with httpx.stream("POST", address, json=body, headers=headers, timeout=self.timeout_s) as answer:
                data = b"".join(_bounded(answer, until))
                status = answer.status_code
        except httpx.TimeoutException as error:
            raise EndpointFailed(
                f"{self.url} has not answered within {self.timeout_s:g} s; check it, or leave --upsample out",
                field="upsample_with",
            ) from error
        except (httpx.HTTPError, httpx.InvalidURL, ValueError) as error:  # ValueError: a key that is no ASCII
            raise EndpointFailed(
                f"{self.url} cannot be reached ({type(error).__name__}); check the address and {KEY_VARIABLE}, or leave "
                "--upsample out",
                field="upsample_with",
            ) from error
        return self._text(status, data)

    def _text(self, status: int, data: bytes) -> str:
        """The answer's text, in either of the two forms that it may have."""
        try:
            said: Any = json.loads(data)
            content = said["choices"][0]["message"]["content"]
            if isinstance(content, list):
                content = "".join(part["text"] for part in content if part["type"] == "text")
        except (ValueError, KeyError, IndexError, TypeError, RecursionError):
            content = None
        if status != 200 or not isinstance(content, str):
            raise EndpointFailed(
                f"{self.url} answers with HTTP {status} and without the text of a chat completion; check the address, "
                f"the model {self.model!r} and {KEY_VARIABLE}",
                field="upsample_with",
            )
        return content


def _bounded(answer: httpx.Response, until: float) -> list[bytes]:
    """The pieces of a body that is neither endless nor sent a byte at a time for ever."""
    pieces, size = [], 0
    for piece in answer.iter_bytes():
        size += len(piece)
        if time.monotonic() > until:
            raise httpx.ReadTimeout("the answer is not complete")
        if size > _MAX_ANSWER_BYTES:
            raise EndpointFailed(f"the endpoint's answer is larger than {_MAX_ANSWER_BYTES:,} bytes; check the address")
        pieces.append(piece)
    return pieces


def _content(prompt: str, pictures: Sequence[Picture]) -> object:
    if not pictures:
        return prompt
    buffer = io.BytesIO()
    upload = beside(pictures)
    upload.save(buffer, "PNG")
    address = "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()
    return [{"type": "image_url", "image_url": {"url": address}}, {"type": "text", "text": prompt}]
