"""The same `generate` call against an endpoint that speaks the BFL protocol: a `licht serve`, or the hosted service.

    client = licht.Client("http://localhost:8000", key="...", model="flux-2-klein-4b")
    client.generate("a small matte blue cube", seed=1)[0].save("cube.png")

A picture comes as the endpoint has signed it, so it is saved byte for byte and never encoded again.
"""

import base64
import binascii
import io
import json
import os
import re
import secrets
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

import httpx

from licht.core.errors import (
    EndpointFailed,
    InsufficientCredits,
    InvalidImage,
    InvalidOutput,
    InvalidRequest,
    LichtError,
    NotAuthenticated,
    OutputExists,
    OutputFailed,
    Refused,
    TooManyJobs,
)
from licht.core.prompt import PromptStyle, settle_prompt
from licht.core.request import MAX_IMAGES, MAX_SEED, MAX_STEPS, Picture, Reference, Role
from licht.core.sizes import Size, check_size, parse_size, require_number, require_whole

if TYPE_CHECKING:
    from typing import TypeAlias, TypeGuard

    from PIL import Image

    Source: TypeAlias = str | Path | Image.Image | Reference

KEY_VARIABLE: Final = "LICHT_API_KEY"
_SUFFIXES: Final[Mapping[str, tuple[str, ...]]] = MappingProxyType(
    {"png": (".png",), "jpeg": (".jpg", ".jpeg"), "webp": (".webp",)}
)
_STARTS: Final[Mapping[str, re.Pattern[bytes]]] = MappingProxyType(
    {
        "png": re.compile(rb"\x89PNG\r\n\x1a\n"),
        "jpeg": re.compile(rb"\xff\xd8\xff"),
        "webp": re.compile(rb"RIFF....WEBP", re.DOTALL),
    }
)
_MAX_ANSWER_BYTES: Final = 4 * 2**20
_MAX_PICTURE_BYTES: Final = 128 * 2**20
_MAX_REFERENCES: Final = 10
_WAITING: Final = ("Pending", "Queued", "Reasoning", "Generating", "Processing")
_MODERATED: Final = ("Request Moderated", "Content Moderated")
_LATER: Final = (429, 502, 503, 504)
"""What a gateway or a busy endpoint says while a job goes on."""
_TRIES: Final = 4


@dataclass(frozen=True, slots=True)
class RemoteResult:
    """One picture from an endpoint: the bytes of its file, and what the endpoint says about it."""

    seed: int
    prompt: str
    output_format: str
    data: bytes = field(repr=False)
    job: str = ""
    cost_credits: float | None = None
    warnings: tuple[str, ...] = ()

    @property
    def image(self) -> "Image.Image":
        """The picture, decoded. Raises `EndpointFailed` if the endpoint has sent none."""
        from PIL import Image

        try:
            opened = Image.open(io.BytesIO(self.data), formats=("PNG", "JPEG", "WEBP"))
            opened.load()
        except Exception as error:  # decoders raise whatever they like on damaged data
            raise EndpointFailed("the endpoint has sent a damaged picture; ask for it again") from error
        return opened

    @property
    def width(self) -> int:
        """Width in pixels."""
        return self.image.width

    @property
    def height(self) -> int:
        """Height in pixels."""
        return self.image.height

    def save(self, path: str | Path, overwrite: bool = False) -> Path:
        """Write the file as it came, atomically. Raises `InvalidOutput` for a suffix of another format, `OutputExists`."""
        target = Path(path)
        if target.suffix.lower() not in _SUFFIXES[self.output_format]:
            raise InvalidOutput(
                f"{target} is no name for the {self.output_format} file that the endpoint has sent; save it as "
                f"{_SUFFIXES[self.output_format][0]}, or ask for another output_format",
                field="output",
            )
        if target.exists() and not overwrite:
            raise OutputExists(f"{target} exists; choose another name or pass overwrite=True", field="output")
        temporary = target.with_name(f".{secrets.token_hex(8)}.part")
        try:
            with temporary.open("xb") as file:
                file.write(self.data)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(target)
        except OSError as error:
            raise OutputFailed(
                f"{target} cannot be written ({error.strerror or error}); choose another place", field="output"
            ) from error
        finally:
            with suppress(OSError):
                temporary.unlink()
        return target


@dataclass(frozen=True, slots=True)
class _Answer:
    status: int
    content: bytes
    retry_after: str | None


class Client:
    """Draws at an endpoint. Close it, or use it as a context; threads may share one."""

    def __init__(
        self,
        url: str,
        *,
        key: str | None = None,
        model: str = "flux-2-klein-4b",
        timeout_s: float = 300.0,
        poll_s: float = 0.5,
        output_format: str = "png",
    ) -> None:
        """Draw with `model` at `url`, such as http://localhost:8000; the key may also stand in LICHT_API_KEY.

        `timeout_s` is how long a picture may take from its submission on.
        """
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.fragment:
            raise InvalidRequest(f"{url!r} is no address of an endpoint; use one such as http://localhost:8000")
        if not re.fullmatch(r"[a-zA-Z0-9._-]{1,100}", model):
            raise InvalidRequest(
                f"model {model!r} is no name of a model; use one such as flux-2-klein-4b", field="model"
            )
        if output_format not in _SUFFIXES:
            raise InvalidRequest(f"output_format {output_format!r} is unknown; use png, jpeg or webp")
        if not timeout_s > 0 or not poll_s >= 0:
            raise InvalidRequest("timeout_s must be above 0 and poll_s at least 0; leave them out for the defaults")
        self.url = url.rstrip("/").removesuffix("/v1")
        self.model = model
        self._key = key if key is not None else os.environ.get(KEY_VARIABLE)
        self._timeout_s, self._poll_s, self._format = timeout_s, poll_s, output_format
        self._http = httpx.Client(timeout=httpx.Timeout(min(timeout_s, 60.0)), follow_redirects=False)

    def close(self) -> None:
        """Let go of the connections."""
        self._http.close()

    def __enter__(self) -> "Client":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def generate(
        self,
        prompt: str,
        *,
        images: "Source | Sequence[Source]" = (),
        size: tuple[int, int] | str | None = None,
        seed: int | None = None,
        num: int = 1,
        steps: int | None = None,
        guidance: float | None = None,
        roles: Role | str | Sequence[Role | str | None] = (),
        upsample: bool | None = None,
    ) -> list[RemoteResult]:
        """Draw `prompt` `num` times, as `licht.load(...).generate` does; all are submitted at once.

        `upsample` asks the endpoint to have the prompt written out, or (False) not to; None leaves it to the endpoint.
        The protocol knows no strengths, starts, masks, margins or LoRAs. Raises `InvalidRequest` and its kin,
        `Refused`, `NotAuthenticated`, `InsufficientCredits`, `TooManyJobs`, and `EndpointFailed` for an endpoint that
        cannot be reached, is too slow or answers with something else.
        """
        seeds = _seeds(seed, num)
        sources = _listed(images)
        worded = _with_roles(sources, (roles,) if isinstance(roles, str) else roles)
        settled = settle_prompt(prompt, worded, PromptStyle.JSON)
        body: dict[str, Any] = {"prompt": settled.text, "output_format": self._format}
        for number, source in enumerate(sources, start=1):
            name = "input_image" if number == 1 else f"input_image_{number}"
            body[name] = base64.b64encode(_file_of(source, number)).decode()
        if (asked := _size(size)) is not None:
            body |= {"width": asked.width, "height": asked.height}
        body |= _numbers(steps, guidance)
        if upsample is not None:
            body["prompt_upsampling"] = upsample
        until = time.monotonic() + self._timeout_s
        submitted = [(self._submit(body | {"seed": one}, until), one) for one in seeds]
        return [self._collect(job, one, settled.text, settled.warnings, until) for job, one in submitted]

    def _submit(self, body: dict[str, Any], until: float) -> dict[str, Any]:
        """The answer to one submission, with its `id` and `polling_url`. Waits where there are too many jobs."""
        address = f"{self.url}/v1/{self.model}"
        answer = self._ask("POST", address, until, json=body)
        for _ in range(_TRIES):
            if answer.status != 429:
                break
            self._pause(_retry_after(answer), until)
            answer = self._ask("POST", address, until, json=body)
        said = _object(answer)
        if not isinstance(said.get("id"), str) or not isinstance(said.get("polling_url"), str):
            raise EndpointFailed(f"{self.url} has accepted the job without an id and a polling_url; check the address")
        return said

    def _collect(
        self, job: dict[str, Any], seed: int, prompt: str, warnings: tuple[str, ...], until: float
    ) -> RemoteResult:
        """Poll until the picture is there, then fetch it."""
        while True:
            answer = self._ask("GET", job["polling_url"], until)
            if answer.status in _LATER:  # the job goes on meanwhile, and is paid for
                self._pause(max(_retry_after(answer), self._poll_s), until)
                continue
            said = _object(answer)
            status = said.get("status")
            if status == "Ready":
                break
            if status in _MODERATED:
                reasons = (
                    (said.get("details") or {}).get("Moderation Reasons") if _is_object(said.get("details")) else None
                )
                listed = ", ".join(map(str, reasons)) if isinstance(reasons, list) else "no reason is given"
                raise Refused(f"{status}: {listed}; ask for something else", field="prompt")
            if status not in _WAITING:
                raise EndpointFailed(f"the job ended as {str(status)[:60]!r}: {_reason(said)}; ask again")
            self._pause(self._poll_s, until)
        result = said.get("result")
        if not _is_object(result) or not isinstance(result.get("sample"), str):
            raise EndpointFailed(f"{self.url} says that the picture is ready, without its address; ask again")
        cost = said.get("cost", job.get("cost"))
        return RemoteResult(
            seed=result["seed"] if isinstance(result.get("seed"), int) else seed,
            prompt=result["prompt"] if isinstance(result.get("prompt"), str) else prompt,
            output_format=self._format,
            data=self._fetch(result["sample"], until),
            job=job["id"],
            cost_credits=float(cost) if isinstance(cost, int | float) else None,
            warnings=(*warnings, *_warnings(said)),
        )

    def _fetch(self, address: str, until: float) -> bytes:
        if address.startswith("data:"):
            try:
                data = base64.b64decode(address.partition(",")[2], validate=True)
            except binascii.Error as error:
                raise EndpointFailed("the endpoint has sent a damaged picture; ask for it again") from error
        else:
            answer = self._ask("GET", address, until, most_bytes=_MAX_PICTURE_BYTES)
            if answer.status != 200:
                raise EndpointFailed(f"the picture cannot be fetched (HTTP {answer.status}); ask for it again")
            data = answer.content
        if _STARTS[self._format].match(data) is None:
            raise EndpointFailed(f"the endpoint has sent something that is no {self._format} file; ask for it again")
        return data

    def _ask(
        self, method: str, address: str, until: float, json: object = None, most_bytes: int = _MAX_ANSWER_BYTES
    ) -> _Answer:
        """One request within the time that is left; GETs are repeated when the connection breaks.

        The key goes to the endpoint itself and to nobody else.
        """
        own = urlsplit(address)[:2] == urlsplit(self.url)[:2]
        headers = {"x-key": self._key} if own and self._key else {}
        for attempt in range(_TRIES):
            left_s = until - time.monotonic()
            try:
                with (
                    _connection_errors(self.url),
                    self._http.stream(
                        method, address, headers=headers, json=json, timeout=max(min(left_s, 60.0), 0.001)
                    ) as answer,
                ):
                    data = _read(answer, most_bytes, until)
                    return _Answer(answer.status_code, data, answer.headers.get("retry-after"))
            except EndpointFailed:
                if method != "GET" or attempt == _TRIES - 1 or until - time.monotonic() < self._poll_s:
                    raise
            self._pause(self._poll_s, until)
        raise EndpointFailed(f"{self.url} cannot be reached; check the address and whether it runs")

    def _pause(self, seconds: float, until: float) -> None:
        """Wait, unless the time would be over before. Raises `EndpointFailed`."""
        if time.monotonic() + seconds > until:
            raise EndpointFailed(
                f"{self.url} has not delivered within {self._timeout_s:g} s; raise timeout_s, or ask again later"
            )
        time.sleep(seconds)


@contextmanager
def _connection_errors(url: str) -> Iterator[None]:
    try:
        yield
    except httpx.TimeoutException as error:
        raise EndpointFailed(f"{url} does not answer in time; check that it runs, or raise timeout_s") from error
    except (httpx.HTTPError, httpx.InvalidURL, ValueError) as error:
        raise EndpointFailed(f"{url} cannot be reached ({type(error).__name__}); check the address") from error


def _read(answer: httpx.Response, most_bytes: int, until: float) -> bytes:
    """The body; an endless one is an error, in bytes and in time."""
    pieces, size = [], 0
    for piece in answer.iter_bytes():
        size += len(piece)
        if size > most_bytes:
            raise EndpointFailed(f"the endpoint's answer is larger than {most_bytes:,} bytes; check the address")
        if time.monotonic() > until:
            raise httpx.ReadTimeout("the answer is not complete")
        pieces.append(piece)
    return b"".join(pieces)


def _object(answer: _Answer) -> dict[str, Any]:
    """The JSON object of an answer. Raises what the status says, and `EndpointFailed` for anything else."""
    try:
        said = json.loads(answer.content)
    except (ValueError, RecursionError):
        said = None
    if answer.status in _FAILURES:
        raise _FAILURES[answer.status](f"the endpoint says: {_reason(said)}")
    # a failed job may come as 422 with the body of a job
    is_job = _is_object(said) and isinstance(said.get("status"), str)
    if answer.status == 422 and not is_job:
        raise InvalidRequest(f"the endpoint refuses the request: {_reason(said)}")
    if (answer.status != 200 and not is_job) or not _is_object(said):
        raise EndpointFailed(
            f"the endpoint answers with HTTP {answer.status} and {_reason(said)}; check its address and model"
        )
    return said


_FAILURES: Final[Mapping[int, Callable[[str], LichtError]]] = MappingProxyType(
    {401: NotAuthenticated, 403: NotAuthenticated, 402: InsufficientCredits, 429: TooManyJobs}
)


def _is_object(value: object) -> "TypeGuard[dict[str, Any]]":
    return isinstance(value, dict)


def _reason(said: object) -> str:
    """What a body says about a failure, as far as it can be understood."""
    if not _is_object(said):
        return "no JSON object"
    for name in ("detail", "message", "error", "details"):
        value = said.get(name)
        if _is_object(value):
            value = value.get("error") or value.get("message")
        if isinstance(value, list):
            value = "; ".join(str(one.get("msg", one)) if _is_object(one) else str(one) for one in value[:3])
        if isinstance(value, str) and value:
            return value[:300]
    return "no reason"


def _warnings(said: Mapping[str, Any]) -> tuple[str, ...]:
    """What a finished job's `details` warn of, as far as they do."""
    details = said.get("details")
    found = details.get("warnings") if _is_object(details) else None
    return tuple(one[:300] for one in found if isinstance(one, str)) if isinstance(found, list) else ()


def _retry_after(answer: _Answer) -> float:
    try:
        return min(max(float(answer.retry_after or 1), 0.05), 60.0)
    except ValueError:
        return 1.0


def _seeds(seed: int | None, num: int) -> list[int]:
    require_whole(num, "num")
    if not 1 <= num <= MAX_IMAGES:
        raise InvalidRequest(f"{num} pictures asked for; ask for 1 to {MAX_IMAGES}", field="num")
    first = secrets.randbelow(2**32) if seed is None else seed
    require_whole(first, "seed")
    if not 0 <= first <= MAX_SEED - num:
        raise InvalidRequest(f"seed {first} is out of range; use 0 to {MAX_SEED}", field="seed")
    return list(range(first, first + num))


def _listed(images: object) -> Sequence[object]:
    if isinstance(images, Sequence) and not isinstance(images, str):
        if len(images) > _MAX_REFERENCES:
            raise InvalidRequest(f"{len(images)} references; use at most {_MAX_REFERENCES}", field="images")
        return images
    return (images,)


def _with_roles(sources: Sequence[object], roles: Sequence[Role | str | None]) -> list[Reference]:
    """References that stand for their numbers and roles; their pixels are not looked at.

    One that was given as a `Reference` keeps its role if none is named; a strength of its own is refused.
    """
    count = len(sources)
    if roles and len(roles) != count:
        raise InvalidRequest(f"{len(roles)} roles for {count} references; give one for each or none", field="roles")
    if any(isinstance(source, Reference) and source.strength != 1.0 for source in sources):
        raise InvalidRequest("the protocol knows no strengths of references; leave them at 1", field="strengths")
    blank = Picture(1, 1, bytes(3))
    try:
        given = [Role(role) if role else None for role in roles] or [
            source.role if isinstance(source, Reference) else None for source in sources
        ]
    except ValueError:
        raise InvalidRequest(f"a role is unknown; use {', '.join(Role)}", field="roles") from None
    return [Reference(blank, role=role) for role in given]


def _file_of(source: object, number: int) -> bytes:
    """The bytes of a reference's file; pixels that are only in memory become a PNG."""
    from PIL import Image

    if isinstance(source, str | Path):
        try:
            return Path(source).read_bytes()
        except (OSError, ValueError) as error:
            raise InvalidImage(f"image {number}: {source} cannot be read; check the path", field="images") from error
    if isinstance(source, Reference):
        if source.file is not None:
            return source.file
        source = Image.frombytes("RGB", (source.picture.width, source.picture.height), source.picture.rgb)
    if not isinstance(source, Image.Image):
        raise InvalidImage(
            f"image {number} is a {type(source).__name__}; pass a path or a Pillow image", field="images"
        )
    buffer = io.BytesIO()
    upload = source.convert("RGB")
    upload.save(buffer, "PNG")
    return buffer.getvalue()


def _size(size: object) -> Size | None:
    if size is None:
        return None
    if isinstance(size, str):
        return parse_size(size)
    if not isinstance(size, Sequence) or len(size) != 2:
        raise InvalidRequest(f"size {size!r} is no pair; use (width, height) or 'WIDTHxHEIGHT'", field="size")
    return check_size(Size(*size))


def _numbers(steps: int | None, guidance: float | None) -> dict[str, Any]:
    given: dict[str, Any] = {}
    if steps is not None:
        require_whole(steps, "steps")
        if not 1 <= steps <= MAX_STEPS:
            raise InvalidRequest(f"{steps} steps asked for; use 1 to {MAX_STEPS}", field="steps")
        given["steps"] = steps
    if guidance is not None:
        require_number(guidance, "guidance")
        given["guidance"] = guidance
    return given
