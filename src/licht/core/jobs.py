"""One line of a batch: a picture order as data, checked before anything is drawn."""

import json
from typing import Annotated, Any, Final, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError

from licht.core.errors import InvalidRequest
from licht.core.request import MAX_IMAGES, MAX_LORA_STRENGTH, MAX_REFERENCE_STRENGTH, MAX_SEED, MAX_STEPS, Role

Path = Annotated[str, StringConstraints(min_length=1, max_length=4096)]
Count = Annotated[int, Field(strict=True)]
_NAME: Final = "a name begins with a letter or a digit and holds letters, digits, '-', '_' and '.', 100 at most"


def fault(error: ValidationError, unknown: str, name: str) -> tuple[str, str]:
    """The dotted path of the first thing that is wrong, and what.

    `unknown` is said of a field that is not known, `name` of a name that cannot be one.
    """
    first = error.errors(include_url=False, include_input=False)[0]
    path = ".".join(str(part) for part in first["loc"] if part != "[key]")
    match first["type"]:
        case "extra_forbidden":
            return path, unknown
        case "string_pattern_mismatch":
            return path, name
        case _:
            return path, first["msg"][:1].lower() + first["msg"][1:]


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """JSON takes the last of equal keys in silence; here a doubled key is an error."""
    data = dict(pairs)
    if len(data) < len(pairs):
        doubled = next(name for name, _ in pairs if [each for each, _ in pairs].count(name) > 1)
        raise InvalidRequest(f"{doubled}: is given twice; keep one of them", field=doubled)
    return data


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)


class JobImage(_Part):
    """A reference with its role and strength; a path alone stands for one without either."""

    path: Path
    role: Role | None = None
    strength: Annotated[float, Field(ge=0, le=MAX_REFERENCE_STRENGTH, allow_inf_nan=False)] = 1.0


class JobLora(_Part):
    """An adapter and how strongly it acts."""

    path: Path
    strength: Annotated[float, Field(ge=-MAX_LORA_STRENGTH, le=MAX_LORA_STRENGTH, allow_inf_nan=False)] = 1.0


class Job(_Part):
    """What `licht generate` can be asked for, by the same names. Paths are relative to the file of the jobs."""

    prompt: str | dict[str, Any]
    name: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$")] | None = None
    images: tuple[Path | JobImage, ...] = ()
    start: Path | None = None
    strength: Annotated[float, Field(gt=0, le=1, allow_inf_nan=False)] | None = None
    mask: Path | None = None
    extend: str | None = None
    size: str | None = None
    aspect: str | None = None
    megapixels: float | None = None
    seed: Annotated[Count, Field(ge=0, le=MAX_SEED)] | None = None
    num: Annotated[Count, Field(ge=1, le=MAX_IMAGES)] = 1
    steps: Annotated[Count, Field(ge=1, le=MAX_STEPS)] | None = None
    guidance: Annotated[float, Field(ge=0, le=100, allow_inf_nan=False)] | None = None
    native_only: bool = False
    loras: tuple[Path | JobLora, ...] = ()
    finish: Literal["none", "phone", "film"] | None = None

    @classmethod
    def from_line(cls, line: str) -> Self:
        """Read one line. Raises `InvalidRequest` with the path of the field that is wrong."""
        try:
            data = json.loads(line, object_pairs_hook=_unique)
        except (ValueError, RecursionError) as error:
            where = f" ({error.msg} at column {error.colno})" if isinstance(error, json.JSONDecodeError) else ""
            raise InvalidRequest(f'the line is not JSON{where}; write {{"prompt": "..."}}') from error
        if not isinstance(data, dict):
            raise InvalidRequest('the line must be a JSON object such as {"prompt": "a red sphere"}')
        try:
            return cls.model_validate(data)
        except ValidationError as error:
            path, said = fault(error, "is no field of a job", _NAME)
            raise InvalidRequest(f"{path}: {said}; correct the line", field=path) from error

    def stems(self, line: int) -> list[str]:
        """What its pictures are called, without a suffix; a job without a name is called by its line."""
        stem = self.name or f"{line:04}"
        return [stem] if self.num == 1 else [f"{stem}-{number}" for number in range(1, self.num + 1)]

    @property
    def prompt_text(self) -> str:
        """The prompt as text; one that is an object is a structured prompt."""
        return self.prompt if isinstance(self.prompt, str) else json.dumps(self.prompt, ensure_ascii=False)

    @property
    def references(self) -> tuple[JobImage, ...]:
        """The references in order."""
        return tuple(JobImage(path=one) if isinstance(one, str) else one for one in self.images)

    @property
    def adapters(self) -> tuple[JobLora, ...]:
        """The LoRAs in order."""
        return tuple(JobLora(path=one) if isinstance(one, str) else one for one in self.loras)
