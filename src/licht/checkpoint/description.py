"""What `licht.json` says of a model that its weights do not.

A module of its own: what trains models imports the rest of this package where pydantic is not installed.
"""

from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from licht.core.errors import InvalidCheckpoint


class Description(BaseModel):
    """The contents of `licht.json`. Every field is optional; an unknown one is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    kind: str | None = None
    text_layers: list[int] | None = Field(None, min_length=1)
    text_length: int | None = Field(None, ge=8, le=4096)
    template: str | None = None
    trained_sizes: list[tuple[int, int]] = Field(default_factory=list)
    max_references: int = Field(10, ge=0, le=10)
    caches_references: bool = False
    structured_prompts: bool = False
    reference_area_px: int | None = Field(None, ge=64 * 64, le=2024 * 2024)
    default_steps: int | None = Field(None, ge=1, le=50)
    default_guidance: float | None = Field(None, ge=0, le=100)


def read_description(path: Path) -> Description:
    """Read `licht.json`, or an empty description if there is none. Raises `InvalidCheckpoint` naming a bad field."""
    if not path.is_file():
        return Description()
    try:
        return Description.model_validate_json(path.read_bytes())
    except OSError as error:
        raise InvalidCheckpoint(f"{path} cannot be read ({error.strerror}); check its permissions") from error
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"]) or "the file"
        raise InvalidCheckpoint(
            f"{path} is not a description of a model: {place}: {first['msg']}; known are {', '.join(Description.model_fields)}"
        ) from error
