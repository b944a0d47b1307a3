"""What is asked of a language model, and what is accepted as its answer.

Whatever is in quotation marks is to be written in the picture: it has to survive word for word. An answer that loses a
quoted text or the mention of a reference is asked for once more; after that the original prompt is used, with a warning.
"""

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Protocol

from licht.core.errors import InvalidPrompt
from licht.core.prompt import image_mentions, quoted_texts
from licht.core.request import Picture

TEMPERATURE: Final = 0.15
MAX_NEW_TOKENS: Final = 512
MAX_ANSWER_CHARACTERS: Final = 8_000
MAX_PICTURE_PX: Final = 768 * 768
"""Area to which the references, side by side, are made smaller for the language model."""

DRAW_SYSTEM: Final = (
    "You write prompts for an image model. Rewrite the user's prompt as one vivid, concrete description of a single "
    "picture: subject, surroundings, light, materials, colors, composition. Keep the user's subject and intent and "
    "every fact they state; add visible detail only. If the prompt is a JSON object, answer with a JSON object of the "
    "same fields. Every text that is to appear in the picture stays word for word in double quotation marks. Say what "
    "is there, never what is not. Answer with the prompt alone."
)
EDIT_SYSTEM: Final = (
    "You write instructions for an image editing model that sees the pictures which the user sees. Rewrite the user's "
    "request as one instruction of 50 to 80 words, about 30 for a simple request: what changes, and what stays as it "
    "is. Call the pictures image 1, image 2 and so on, as the user does. Every text that is to appear in the picture "
    "stays word for word in double quotation marks. Turn what should be absent into what should be there instead. "
    "Answer with the instruction alone."
)


class Upsampler(Protocol):
    """A language model that can be asked."""

    def answer(self, system: str, prompt: str, pictures: Sequence[Picture]) -> str:
        """The model's answer. Raises `EndpointFailed` if there is none."""
        ...


@dataclass(frozen=True, slots=True)
class Upsampled:
    """The prompt that is to be used, and what happened on the way to it."""

    prompt: str
    asked: str
    warnings: tuple[str, ...] = ()


def upsample(prompt: str, pictures: Sequence[Picture], upsampler: Upsampler) -> Upsampled:
    """Let `upsampler` write `prompt` out. Raises `InvalidPrompt` for a prompt that is broken itself, `EndpointFailed`."""
    quoted_texts(prompt), image_mentions(prompt, len(pictures))
    system, wanted = EDIT_SYSTEM if pictures else DRAW_SYSTEM, prompt
    lost = ""
    for _ in range(2):
        answer = _plain(upsampler.answer(system, wanted, pictures))
        lost = _lost(prompt, answer, len(pictures))
        if not lost:
            return Upsampled(answer, prompt)
        wanted = f"{prompt}\n\nYour last answer lost {lost}. Keep it exactly as it stands in the prompt."
    return Upsampled(prompt, prompt, (f"upsampling lost {lost} twice; the prompt was used as it is",))


def _lost(prompt: str, answer: str, count: int) -> str:
    """What an answer has lost, in words; "" if it is good."""
    if not answer or len(answer) > MAX_ANSWER_CHARACTERS:
        return "the description itself" if not answer else "all brevity"
    if any(unicodedata.category(character) in ("Cc", "Cs") and character not in "\t\n\r" for character in answer):
        return "the form of a prompt"  # the door would blame whoever typed the prompt
    try:
        kept, mentioned = quoted_texts(answer), image_mentions(answer, count)
    except InvalidPrompt:
        return "the form of a prompt"
    for text in quoted_texts(prompt):
        if text not in kept:
            return f'the text "{text}"'
    for number in image_mentions(prompt, count):
        if number not in mentioned:
            return f"image {number + 1}"
    return ""


def _plain(answer: str) -> str:
    """The answer without what chat models like to put around it: a code fence, or quotation marks around everything."""
    text = answer.strip()
    if text.startswith("```") and text.endswith("```") and "\n" in text:
        text = text.partition("\n")[2].removesuffix("```").strip()
    if len(text) > 1 and text[0] == text[-1] == '"' and text.count('"') == 2:
        text = text[1:-1].strip()
    return text
