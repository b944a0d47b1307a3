"""Storyboards: characters and objects that live across frames, one prompt a frame, a shared style and seed policy.

A prompt mentions a character as `@name`. Each frame is drawn with the pictures of the characters that it mentions, and
the mention becomes words that the models know: "a woman in a red coat (image 1)".
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Final, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError

from licht.core.errors import InvalidPrompt, InvalidRequest
from licht.core.jobs import fault
from licht.core.prompt import StructuredPrompt, parse_prompt_text
from licht.core.request import MAX_REFERENCE_STRENGTH, MAX_SEED, Role

MAX_FRAMES: Final = 64
_MENTION: Final = re.compile(r"(?<![\w@.])@([A-Za-z][A-Za-z0-9_-]*)")
_NAME: Final = "a name begins with a letter and holds letters, digits, '-' and '_', 50 at most"
_IMAGE: Final = re.compile(r"image_?\d+", re.IGNORECASE)

Name = Annotated[str, StringConstraints(pattern=r"^[A-Za-z][A-Za-z0-9_-]{0,49}$")]
Text = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=32_768)]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)


class Character(_Part):
    """Somebody or something that appears in several frames: pictures, a description, or both.

    `images` are files, or whatever the caller can open.
    """

    images: Annotated[tuple[str, ...], Field(max_length=10)] = ()
    description: Text | None = None
    role: Role | None = None
    strength: Annotated[float, Field(ge=0, le=MAX_REFERENCE_STRENGTH, allow_inf_nan=False)] = 1.0


class Frame(_Part):
    """One picture of the story."""

    prompt: Text
    seed: Annotated[int, Field(ge=0, le=MAX_SEED)] | None = None


@dataclass(frozen=True, slots=True)
class Shot:
    """What one frame is drawn with: `images` in order, each with the character it belongs to."""

    prompt: str
    seed: int
    images: tuple[tuple[str, Character], ...]


class Story(_Part):
    """A storyboard. `seeds` says what frames without a seed of their own get: all the same one, or one after another."""

    title: Annotated[str, StringConstraints(strip_whitespace=True, max_length=200)] = "Untitled"
    style: Text | None = None
    seed: Annotated[int, Field(ge=0, le=MAX_SEED)] | None = None
    seeds: Literal["same", "count"] = "same"
    characters: dict[Name, Character] = Field(default_factory=dict)
    objects: dict[Name, Character] = Field(default_factory=dict)
    frames: Annotated[tuple[Frame, ...], Field(min_length=1, max_length=MAX_FRAMES)]

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """Check parsed TOML or JSON. Raises `InvalidRequest`, with the dotted path of the field."""
        try:
            story = cls.model_validate(dict(data))
        except ValidationError as error:
            path, said = fault(error, "is unknown", _NAME)
            raise InvalidRequest(f"{path}: {said}; see docs for the form of a story", field=path) from error
        story.check()
        return story

    def check(self) -> None:
        """Raise `InvalidPrompt` for a frame that mentions somebody unknown, or that has too many pictures."""
        for name in self.characters.keys() & self.objects.keys():
            path = f"objects.{name}"
            raise InvalidRequest(f"{path}: a character is called so too; choose another name", field=path)
        for name, character in self.everything.items():
            path = f"{'characters' if name in self.characters else 'objects'}.{name}"
            if not character.images and character.description is None:
                raise InvalidRequest(f"{path}: has neither images nor a description; give it one of them", field=path)
            if _IMAGE.fullmatch(name):
                raise InvalidRequest(f"{path}: this name means a picture by its number; choose another", field=path)
        for number in range(1, len(self.frames) + 1):
            self.shot(number, 0)

    @property
    def everything(self) -> dict[str, Character]:
        """Characters and objects alike, by their names."""
        return {**self.characters, **self.objects}

    def cast(self, number: int) -> tuple[str, ...]:
        """The characters of frame `number` (from 1), in the order of their first mention. Raises `InvalidPrompt`."""
        field = f"frames.{number - 1}.prompt"
        mentioned = dict.fromkeys(_MENTION.findall(self.frames[number - 1].prompt))
        there = self.everything
        for name in mentioned:
            if name not in there:
                known = ", ".join(f"@{each}" for each in there) or "none"
                raise InvalidPrompt(f"frame {number} mentions @{name}; the characters are: {known}", field=field)
        return tuple(mentioned)

    def shot(self, number: int, story_seed: int) -> Shot:
        """What frame `number` (from 1) is drawn with; `story_seed` is where the story's seeds begin."""
        frame = self.frames[number - 1]
        images: list[tuple[str, Character]] = []
        words: dict[str, str] = {}
        for name in self.cast(number):
            character = self.everything[name]
            numbers = range(len(images) + 1, len(images) + len(character.images) + 1)
            pictures = f" ({', '.join(f'image {each}' for each in numbers)})" if numbers else ""
            words[name] = f"{character.description or name}{pictures}"
            images += [(image, character) for image in character.images]
        prompt = self._worded(number, words)
        counted = story_seed + (number - 1 if self.seeds == "count" else 0)
        return Shot(prompt, frame.seed if frame.seed is not None else counted % (MAX_SEED + 1), tuple(images))

    def _worded(self, number: int, words: Mapping[str, str]) -> str:
        """The prompt of frame `number` with `words` for its characters and with the story's style."""
        prompt = self.frames[number - 1].prompt
        try:
            structured = parse_prompt_text(prompt)
        except InvalidPrompt as error:
            raise InvalidPrompt(f"frame {number}: {error.message}", field=f"frames.{number - 1}.prompt") from error
        if structured is None:
            prompt = _MENTION.sub(lambda match: words[match[1]], prompt)
            ended = prompt.rstrip().endswith((".", "!", "?"))
            return prompt if self.style is None else f"{prompt.rstrip()}{'' if ended else '.'} Style: {self.style}"
        inside = {name: json.dumps(said, ensure_ascii=False)[1:-1] for name, said in words.items()}
        written = StructuredPrompt.from_json(_MENTION.sub(lambda match: inside[match[1]], prompt))
        # a frame's own style counts more
        return written.model_copy(update={"style": written.style or self.style}).to_json()
