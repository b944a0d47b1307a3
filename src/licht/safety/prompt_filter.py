"""The prompt filter: text is undone of its disguises, then read by rules.

A rule has a category and a level: the highest tolerance (0 to 5) at which it still refuses. Level 5 refuses always.
Rules are regular expressions over plain lower-case words, some of them in pairs that must both occur; an exemption
takes back what a rule found. That is a filter for what is said plainly or thinly disguised, not for every paraphrase:
docs/safety.md has its measured precision and recall.
"""

import base64
import binascii
import json
import re
import unicodedata
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from licht.safety.prompt_rules import RULES, Rule

_CONFUSABLE: Final[Mapping[int, int]] = MappingProxyType(
    str.maketrans(
        "\u0430\u0432\u0435\u0433\u0456\u0458\u043a\u043c\u043d\u043e\u0440\u0441\u0442\u0443\u0445\u0455"
        "\u0501\u051b\u051d\u04bb\u04cf\u0475\u03b1\u03b2\u03b5\u03b7\u03b9\u03ba\u03bd\u03bf\u03c1\u03c4"
        "\u03c5\u03c7\u03c9\u03b3\u0131\u0251\u0261\u1d00\u0299\u1d04\u1d05\u1d07\u0262\u029c\u026a\u1d0a"
        "\u1d0b\u029f\u1d0d\u0274\u1d0f\u1d18\u0280\u1d1b\u1d1c\u1d20\u1d21\u028f\u1d22\u0142",
        "aberijkmhopctyxsdqwhlvabenikvoptuxwyiagabcdeghijklmnoprtuvwyzl",
    )
)
"""Letters of other alphabets that look like Latin ones."""
_LEET: Final[Mapping[int, int]] = MappingProxyType(str.maketrans("0134578@$!|", "oieastbasil"))
_SPACED: Final = re.compile(r"(?<![a-z0-9@$!])(?:[a-z0-9@$!][\s._*\-+~/\\|]){3,}[a-z0-9@$!](?![a-z0-9@$!])")
_ENCODED: Final = re.compile(r"[A-Za-z0-9+/]{6,}={0,2}")
_REVERSED: Final = re.compile("[\u202e\u2067]([^\u202c\u2069\n]*)")
"""What a right-to-left override or isolate shows backwards."""
_LEET_WORD: Final = re.compile(r"[a-z0-9@$!|]*[a-z][a-z0-9@$!|]*")
_LONGEST_DECODED: Final = 32_768


@dataclass(frozen=True, slots=True)
class Finding:
    """One rule that a prompt meets. It refuses at tolerances up to `level`."""

    rule: str
    category: str
    level: int

    def refused_at(self, tolerance: int) -> bool:
        """Whether this refuses the prompt at a tolerance of 0 to 5."""
        return tolerance <= self.level


def screen(prompt: str, edits: bool = False) -> tuple[Finding, ...]:
    """Every rule that `prompt` meets in any reading; `edits` says that pictures come with it."""
    texts = tuple(readings(prompt))
    compact = {text.replace(" ", "") for text in texts}
    found = []
    for rule in RULES:
        if rule.edits_only and not edits:
            continue
        if any(_meets(rule, text) for text in (compact if rule.compact else texts)):
            found.append(Finding(rule.name, rule.category, rule.level))
    return tuple(found)


def readings(prompt: str) -> Iterator[str]:
    """The ways in which a prompt can be read: as it stands, with disguises undone, decoded; each in plain words."""
    seen = set()
    backwards = (match[1][::-1] for match in _REVERSED.finditer(prompt))
    # an invisible character may stand inside a word, or between two
    spread = "".join(" " if unicodedata.category(c) == "Cf" else c for c in prompt)
    for text in (prompt, spread, *_fields(prompt), *_decoded(prompt), *backwards):
        plain = _plain(text)
        joined = _SPACED.sub(lambda match: re.sub(r"[\s._*\-+~/\\|]", "", match[0]), plain)
        for reading in (plain, joined, _unleet(plain), _unleet(joined)):
            words = " ".join(re.sub(r"[^\w\s'-]", " ", reading).split())
            # the second of each pair also finds what is broken by hyphens, dots or underscores inside a word
            parted = " ".join(words.replace("-", " ").replace("_", " ").split())
            for form in (words, parted, re.sub(r"(?<=\w)[-_'](?=\w)", "", words)):
                if form not in seen:
                    seen.add(form)
                    yield form
        glued = re.sub(r"(?<=[a-z])[.*_~|+](?=[a-z])", "", plain)
        if glued != plain and glued not in seen:
            seen.add(glued)
            yield glued


def _plain(text: str) -> str:
    """Compatibility forms, invisible characters, accents and foreign look-alikes gone; lower case."""
    text = unicodedata.normalize("NFKC", text)
    text = "".join(c for c in unicodedata.normalize("NFD", text) if unicodedata.category(c) not in ("Cf", "Mn", "Me"))
    # a whole text in another alphabet is not a disguise, but reading it as Latin does no harm: it becomes no word
    return text.lower().translate(dict(_CONFUSABLE))


def _unleet(text: str) -> str:
    """Digits and signs read as letters, in words that hold a letter; numbers stay numbers."""
    return _LEET_WORD.sub(lambda match: match[0].translate(dict(_LEET)), text)


def _fields(prompt: str) -> Iterator[str]:
    """The strings of a JSON prompt, joined with and without a blank: what is split over fields is one text again.

    A word may be split in the middle of the text, over two fields or more: each few neighbours are joined too.
    """
    if prompt.lstrip()[:1] not in ("{", "["):
        return
    try:
        strings = list(_strings(json.loads(prompt)))
    except (ValueError, RecursionError):
        return
    yield " ".join(strings)
    yield "".join(strings)
    for count in (2, 3, 4):
        if len(strings) > count:
            yield " . ".join("".join(strings[start : start + count]) for start in range(len(strings) - count + 1))


def _strings(value: object) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, list):
        for item in value:
            yield from _strings(item)
    elif isinstance(value, dict):
        for item in value.values():
            yield from _strings(item)


def _decoded(prompt: str) -> Iterator[str]:
    """Base64 in the prompt that holds text."""
    for match in _ENCODED.finditer(prompt):
        try:
            text = base64.b64decode(match[0][: len(match[0]) // 4 * 4], validate=True).decode("utf-8")
        except (binascii.Error, ValueError):
            continue
        if text.isprintable():
            yield text[:_LONGEST_DECODED]


def _meets(rule: Rule, text: str) -> bool:
    if rule.exempt is not None:
        text = rule.exempt.sub(" ", text)
    return all(pattern.search(text) for pattern in rule.patterns)
