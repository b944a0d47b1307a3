"""Prompts that a program can read: the typed structured prompt, and mentions of references in any prompt.

The names of the fields are those of FLUX.2's published JSON prompting. Unknown fields are kept, since the models read
the JSON as text, and can be listed for a warning.
"""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType
from typing import Annotated, Any, ClassVar, Final, NoReturn, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from licht.core.errors import InvalidPrompt
from licht.core.request import Reference, Role

_HEX_COLOR = re.compile(r"#[0-9a-fA-F]{6}")
_OBJECT_START = re.compile(r'\s*\{\s*["\'}]|\s*\[\s*\{\s*["\'}]')
_MENTION = re.compile(r"(?<![\w@.])@image_?(\d+)(?!\w)|(?<!\w)(?<!@)image (\d+)(?!\w)", re.IGNORECASE)
_DEEPEST = 16
_QUOTED = re.compile(
    r'"([^"\n]{1,500})"|\u201c([^\u201d\n]{1,500})\u201d|\u201e([^\u201c\u201d\n]{1,500})[\u201c\u201d]'
)
_ROLES_FIELD: Final = "reference_roles"
_ROLE_WORDS: Final[Mapping[Role, str]] = MappingProxyType(
    {
        Role.SUBJECT: "Take the subject from {image} and keep its identity.",
        Role.STYLE: "Take only the style from {image}, not what it shows.",
        Role.BACKGROUND: "Take the background from {image}.",
        Role.LIGHTING: "Take the lighting from {image}.",
        Role.POSE: "Take the pose from {image}, not who is in it.",
        Role.PALETTE: "Take only the colors from {image}.",
        Role.DEPTH: "{image} is a depth map: follow its depth and layout.",
        Role.EDGES: "{image} is an edge map: follow its outlines.",
    }
)


def _hex(value: object) -> object:
    if not isinstance(value, str) or not _HEX_COLOR.fullmatch(value.strip()):
        raise ValueError("is not a color of the form #rrggbb, such as #ff8800")
    return value.strip().lower()


def _color(value: object) -> object:
    """A hex color is checked, a color by its name is any text."""
    return _hex(value) if isinstance(value, str) and value.strip().startswith("#") else value


def _one_or_many(value: object) -> object:
    return [value] if isinstance(value, str) else value


def _measure(value: object) -> object:
    fits = isinstance(value, str | int | float) and not isinstance(value, bool)
    if not fits:
        raise ValueError("must be a text or a number")
    return value


HexColor = Annotated[str, BeforeValidator(_hex), Field(json_schema_extra={"pattern": "^#[0-9a-fA-F]{6}$"})]
ColorName = Annotated[str, BeforeValidator(_color)]
Texts = Annotated[tuple[str, ...], BeforeValidator(_one_or_many)]
ColorNames = Annotated[tuple[ColorName, ...], BeforeValidator(_one_or_many)]
Palette = Annotated[tuple[HexColor, ...], BeforeValidator(_one_or_many)]
Measure = Annotated[str | int | float, BeforeValidator(_measure)]


class _Part(BaseModel):
    """A part of a structured prompt: frozen, keeps fields it does not know, reads names and aliases."""

    model_config: ClassVar[ConfigDict] = ConfigDict(
        frozen=True, extra="allow", populate_by_name=True, str_strip_whitespace=True, hide_input_in_errors=True
    )

    def known(self) -> dict[str, object]:
        """The fields that are set, by their JSON names and in the order of the class."""
        fields = type(self).model_fields
        values = {info.alias or name: getattr(self, name) for name, info in fields.items()}
        return {name: value for name, value in values.items() if not _is_blank(value)}

    def extras(self) -> dict[str, object]:
        """The fields that the class does not know, sorted by name."""
        return {name: value for name, value in sorted((self.model_extra or {}).items()) if not _is_blank(value)}


class Subject(_Part):
    """Somebody or something in the picture."""

    type: str | None = None
    description: str | None = None
    pose: str | None = None
    position: str | None = None
    action: str | None = None
    colors: ColorNames = ()


class Camera(_Part):
    """How the picture is taken."""

    angle: str | None = None
    distance: str | None = None
    focus: str | None = None
    lens: Measure | None = None
    lens_mm: Measure | None = Field(default=None, alias="lens-mm")
    f_number: Measure | None = Field(default=None, alias="f-number")
    iso: Measure | None = Field(default=None, alias="ISO")
    depth_of_field: str | None = None


class RenderedText(_Part):
    """A text that is to be written in the picture."""

    content: str = Field(min_length=1)
    font: str | None = None
    place: str | None = None
    size: Measure | None = None
    color: ColorName | None = None


class StructuredPrompt(_Part):
    """A prompt as JSON: every field is optional, at least one must be there."""

    scene: str | None = None
    subjects: tuple[Subject, ...] = ()
    style: str | None = None
    color_palette: Palette = ()
    lighting: str | None = None
    mood: str | None = None
    background: str | None = None
    composition: str | None = None
    camera: Camera | None = None
    effects: Texts = ()
    texts: tuple[RenderedText, ...] = ()

    @classmethod
    def from_json(cls, text: str) -> Self:
        """Read a JSON object. Raises `InvalidPrompt`, with the dotted path of the field where one is to blame."""
        try:
            data = json.loads(text, object_pairs_hook=_unique, parse_constant=_no_constant)
        except json.JSONDecodeError as error:
            raise InvalidPrompt(
                f"the structured prompt is not JSON: {error.msg} in line {error.lineno}, column {error.colno}; "
                "correct it there"
            ) from error
        except (ValueError, RecursionError) as error:
            raise InvalidPrompt(
                "the structured prompt holds a number or a nesting beyond all use; shorten it"
            ) from error
        if not isinstance(data, dict):
            raise InvalidPrompt('the structured prompt must be a JSON object such as {"scene": "a red sphere"}')
        return cls.from_dict(data)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """Check parsed JSON. Raises `InvalidPrompt` as `from_json` does."""
        _check_values(data, ())
        try:
            prompt = cls.model_validate(dict(data))
        except ValidationError as error:
            raise _pointed(error) from error
        if not _plain(prompt):
            raise InvalidPrompt("the structured prompt is empty; describe at least the scene")
        return prompt

    def unknown_fields(self) -> list[str]:
        """Dotted paths of fields that are not part of the format, such as `subjects.0.weight`."""
        return list(_unknown(self, ""))

    def to_json(self) -> str:
        """The canonical text: fields in the order of the classes, unknown ones after them, nothing empty."""
        return json.dumps(_plain(self), ensure_ascii=False, separators=(", ", ": "))

    def to_prose(self) -> str:
        """The same as sentences, for models that read prose better; equal prompts give equal prose."""
        parts = [self.scene, *(_subject_prose(subject) for subject in self.subjects)]
        parts += [f"{self.background} in the background" if self.background else None]
        parts += [f"lit by {self.lighting}" if self.lighting else None]
        parts += [_text_prose(text) for text in self.texts]
        parts += [_labelled("composition", self.composition), _camera_prose(self.camera)]
        parts += [_labelled("effects", ", ".join(filter(None, self.effects)))]
        parts += [_labelled("colors", ", ".join(self.color_palette))]
        parts += [_labelled("style", self.style), _labelled("mood", self.mood)]
        parts += [_labelled(name, _words(value)) for name, value in self.extras().items()]
        return " ".join(_sentence(part) for part in parts if part)


def json_schema() -> dict[str, Any]:
    """The JSON schema of the structured prompt, with the names as they stand in JSON."""
    return StructuredPrompt.model_json_schema(by_alias=True)


def parse_prompt_text(text: str) -> StructuredPrompt | None:
    """The structured prompt that `text` holds, or None if it is prose.

    A text that begins like a JSON object (a brace, then a quote or a closing brace) or like a list of them is taken for
    JSON: raises `InvalidPrompt` if it is broken.
    """
    return StructuredPrompt.from_json(text) if _OBJECT_START.match(text) else None


def image_mentions(text: str, count: int) -> tuple[int, ...]:
    """Indices (from 0) of the references that `text` mentions, in the order of their first mention.

    `@image1`, `@image_1` and "image 1" all mean the first of `count` references. "image 3" without a third reference
    may be plain language and is left alone; `@image3` cannot be and raises `InvalidPrompt`.
    """
    found: dict[int, None] = {}
    for match in _MENTION.finditer(text):
        digits = match[1] or match[2]
        number = int(digits[-9:]) if len(digits.lstrip("0")) <= 9 else 10**9
        if 1 <= number <= count:
            found[number - 1] = None
        elif match[1]:
            there = f"only {count} reference{'s' if count > 1 else ''} given" if count else "no reference is given"
            raise InvalidPrompt(
                f"the prompt mentions {match[0]}, but {there}; they count from @image1; add it or drop the mention",
                field="prompt",
            )
    return tuple(found)


class PromptStyle(StrEnum):
    """What a structured prompt is turned into before a model reads it."""

    JSON = "json"
    PROSE = "prose"


@dataclass(frozen=True, slots=True)
class SettledPrompt:
    """The text that the model reads, and what should be said about it."""

    text: str
    warnings: tuple[str, ...] = ()


def settle_prompt(prompt: str, references: Sequence[Reference], style: PromptStyle) -> SettledPrompt:
    """Turn what was typed into what the model reads.

    A structured prompt becomes canonical JSON or prose; `@image1` becomes "image 1", the words that the models know;
    the roles of references are put into words. Prose without mentions and roles stays byte for byte what it was.
    Raises `InvalidPrompt` for a broken structured prompt and for a mention of a reference that is not there.
    """
    image_mentions(prompt, len(references))
    text, words = _plain_mentions(prompt), role_words(references)
    structured = parse_prompt_text(text)
    if structured is None:
        return SettledPrompt(" ".join(filter(None, (_ended(text), *words))) if words else text)
    warnings = tuple(
        f"{name} is no field of the structured prompt; it was kept as it is" for name in structured.unknown_fields()
    )
    if style is PromptStyle.PROSE:
        return SettledPrompt(" ".join((structured.to_prose(), *words)), warnings)
    if words and _ROLES_FIELD in structured.extras():
        raise InvalidPrompt(
            f"{_ROLES_FIELD}: is in the prompt, and references have roles too; use one of the two", field=_ROLES_FIELD
        )
    given = structured.model_copy(update={_ROLES_FIELD: words}) if words else structured
    return SettledPrompt(given.to_json(), warnings)


def role_words(references: Sequence[Reference]) -> tuple[str, ...]:
    """A sentence for each reference that has a role, in the order of the references."""
    roles = ((number, reference.role) for number, reference in enumerate(references, start=1))
    return tuple(
        _sentence(_ROLE_WORDS[role].format(image=f"image {number}")) for number, role in roles if role is not None
    )


def quoted_texts(prompt: str) -> tuple[str, ...]:
    """What is to be written in the picture, each once: quoted in prose, or the `texts` of a structured prompt."""
    structured = parse_prompt_text(prompt)
    prose = prompt if structured is None else structured.to_prose()
    found = [text for match in _QUOTED.finditer(prose) if (text := next(filter(None, match.groups()))).strip()]
    listed = [] if structured is None else [text.content for text in structured.texts]
    return tuple(dict.fromkeys([*listed, *found]))


def _plain_mentions(text: str) -> str:
    """`text` with `image 1` for `@image1` and `@image_1`."""
    return _MENTION.sub(lambda match: f"image {int(match[1])}" if match[1] else match[0], text)


def _is_blank(value: object) -> bool:
    return value is None or value == "" or (isinstance(value, tuple | list | dict) and not value)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """JSON takes the last of equal keys in silence; here a doubled key is an error."""
    data: dict[str, Any] = {}
    for name, value in pairs:
        if name in data:
            raise InvalidPrompt(f"the structured prompt gives {name!r} twice; keep one of them", field=name)
        data[name] = value
    return data


def _no_constant(name: str) -> NoReturn:
    raise InvalidPrompt(f"the structured prompt holds {name}, which is no JSON value; use a number or leave it out")


def _check_values(value: object, path: tuple[str, ...]) -> None:
    """Refuse what could not be written again: broken Unicode and endless nesting."""
    where = ".".join(path)
    if len(path) > _DEEPEST:
        raise InvalidPrompt(f"{where}: nested more than {_DEEPEST} deep; flatten it", field=where)
    if isinstance(value, str) and not _encodable(value):
        raise InvalidPrompt(f"{where}: holds half of a surrogate pair, which is no character; retype it", field=where)
    if isinstance(value, Mapping):
        for name, inner in value.items():
            _check_values(name, path)
            _check_values(inner, (*path, str(name)))
    elif isinstance(value, list | tuple):
        for index, inner in enumerate(value):
            _check_values(inner, (*path, str(index)))


def _encodable(text: str) -> bool:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def _pointed(error: ValidationError) -> InvalidPrompt:
    """Our own words for the first fault that pydantic found."""
    errors = error.errors(include_url=False, include_input=False)
    first = errors[0]
    path = ".".join(str(part) for part in first["loc"])
    more = f" (and {len(errors) - 1} more)" if len(errors) > 1 else ""
    return InvalidPrompt(f"{path}: {_fault(first['type'], first['msg'])}{more}; see the schema", field=path)


def _fault(kind: str, message: str) -> str:
    match kind:
        case "value_error":
            return message.removeprefix("Value error, ")  # raised above, so the words are ours
        case "string_type":
            return "must be a text"
        case "tuple_type" | "list_type":
            return "must be a list"
        case "model_type" | "model_attributes_type" | "dict_type":
            return "must be an object"
        case "missing":
            return "is missing"
        case "string_too_short":
            return "must not be empty"
        case _:
            return "has a value that does not fit"


def _unknown(part: _Part, prefix: str) -> Iterator[str]:
    for name, value in part.known().items():
        inner = value if isinstance(value, tuple) else (value,)
        for index, item in enumerate(inner):
            if isinstance(item, _Part):
                yield from _unknown(
                    item, f"{prefix}{name}.{index}." if isinstance(value, tuple) else f"{prefix}{name}."
                )
    for name in part.model_extra or {}:
        yield prefix + name


def _plain(value: object) -> object:
    """`value` as JSON data without anything blank; unknown objects with sorted keys."""
    if isinstance(value, _Part):
        plain = {name: _plain(inner) for name, inner in (value.known() | value.extras()).items()}
    elif isinstance(value, dict):
        plain = {name: _plain(inner) for name, inner in sorted(value.items())}
    elif isinstance(value, tuple | list):
        return [item for item in map(_plain, value) if not _is_blank(item)]
    else:
        return value
    return {name: inner for name, inner in plain.items() if not _is_blank(inner)}


def _subject_prose(subject: Subject) -> str:
    named, described = subject.type or "", subject.description or ""
    name = described if named.lower() in described.lower() else ", ".join(filter(None, (named, described)))
    colors = " and ".join(filter(None, (", ".join(subject.colors[:-1]), *subject.colors[-1:])))
    parts = [name, f"in {colors}" if colors else "", subject.pose, subject.action, subject.position]
    parts += [f"{key.replace('_', ' ')} {_words(value)}" for key, value in subject.extras().items()]
    return ", ".join(filter(None, parts))


def _text_prose(text: RenderedText) -> str:
    details = [
        text.place,
        f"{text.font} font" if text.font else None,
        str(text.size) if text.size else None,
        text.color,
    ]
    details += [f"{key.replace('_', ' ')} {_words(value)}" for key, value in text.extras().items()]
    return ", ".join([f'the text "{text.content}"', *filter(None, details)])


def _camera_prose(camera: Camera | None) -> str | None:
    if camera is None:
        return None
    parts: list[str | None] = [camera.angle, camera.distance, camera.focus]
    parts += [f"{camera.lens} lens" if _is_number(camera.lens) else _or_none(camera.lens)]
    parts += [f"{camera.lens_mm} mm" if _is_number(camera.lens_mm) else _or_none(camera.lens_mm)]
    parts += [f"f/{camera.f_number}" if _is_number(camera.f_number) else _or_none(camera.f_number)]
    parts += [None if camera.iso is None else f"ISO {str(camera.iso).removeprefix('ISO').strip()}"]
    depth = camera.depth_of_field
    parts += [f"{depth} depth of field" if depth and "depth of field" not in depth.lower() else depth]
    parts += [f"{key.replace('_', ' ')} {_words(value)}" for key, value in camera.extras().items()]
    return _labelled("camera", ", ".join(filter(None, parts)))


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) or (isinstance(value, str) and value.replace(".", "", 1).isdigit())


def _or_none(value: object) -> str | None:
    return None if value is None else str(value)


def _labelled(label: str, text: str | None) -> str | None:
    return f"{label.replace('_', ' ')}: {text}" if text else None


def _words(value: object) -> str:
    """An unknown value as plain words."""
    if isinstance(value, dict):
        return ", ".join(f"{key.replace('_', ' ')} {_words(inner)}" for key, inner in sorted(value.items()))
    if isinstance(value, tuple | list):
        return ", ".join(map(_words, value))
    return ("yes" if value else "no") if isinstance(value, bool) else str(value)


def _sentence(text: str) -> str:
    text = text.strip()
    return _ended(text[:1].upper() + text[1:])


def _ended(text: str) -> str:
    """`text` with a full stop, unless it ends already or there is none."""
    text = text.rstrip()
    return text if text[-1:] in ".!?" else text + "."
