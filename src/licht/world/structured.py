"""The structured JSON prompt of a scene, as plain data with the field names of `core.prompt.StructuredPrompt`."""

import random
from typing import Any, Final

from licht.world import phrases as p
from licht.world import vocabulary as v
from licht.world.arrange import arrange, sides
from licht.world.phrases import Voice
from licht.world.scene import Character, Lettering, Scene, Subject, Thing

_COMPOSITIONS: Final = {
    "empty": "empty",
    "single": "one subject",
    "row": "in a row from left to right",
    "depth": "one behind the other",
    "rows": "two rows",
    "loose": "several subjects",
}


def _colors(subject: Subject) -> list[str]:
    if isinstance(subject, Thing):
        return [color for color in (subject.color, subject.second) if color is not None]
    return [color for color in (subject.body_color, subject.head_color, subject.hat_color) if color is not None]


def palette(scene: Scene) -> list[str]:
    """`#rrggbb` of all colours of the subjects, in order, each once."""
    found: list[str] = []
    for subject in scene.subjects:
        found += [v.hex_of(color) for color in _colors(subject) if v.hex_of(color) not in found]
    return found


def _positions(scene: Scene) -> dict[int, str]:
    arrangement = arrange(scene)
    told = sides(scene)
    places: dict[int, str] = {}
    for order, unit in enumerate(arrangement.units):
        places[unit[0]] = "in the middle" if told[unit[0]] == "middle" else f"on the {told[unit[0]]}"
        if arrangement.kind == "depth":
            places[unit[0]] = "in the foreground" if order == 0 else "in the background"
        if arrangement.kind == "rows":
            back = order < arrangement.behind
            number = order if back else order - arrangement.behind
            places[unit[0]] = f"{'back' if back else 'front'} row, number {number + 1} from the left"
        if arrangement.kind == "row" and len(set(told.values())) < len(arrangement.units):
            places[unit[0]] = f"number {order + 1} from the left"
        for upper in unit[1:]:
            places[upper] = "on top of " + _description(scene.subjects[unit[0]])
    return places


def _voice() -> Voice:
    return Voice(random.Random(0), "train", plain=True)


def _description(subject: Subject) -> str:
    if isinstance(subject, Thing):
        return p.with_article(p.thing_noun(subject, _voice(), p.THING_ATTRIBUTES))
    return p.with_article(p.character_noun(subject, _voice(), ("body", "head", "hat")))


def _subject(subject: Subject, place: str) -> dict[str, Any]:
    kind = subject.shape if isinstance(subject, Thing) else "character"
    data: dict[str, Any] = {"type": kind, "description": _description(subject)}
    if isinstance(subject, Character):
        data["pose"] = "raised arms" if subject.arms == "up" else "lowered arms"
        data["action"] = "looking at the camera" if subject.facing == "camera" else f"looking to the {subject.facing}"
    return data | {"position": place, "colors": _colors(subject)}


def _text(text: Lettering, content: str) -> dict[str, Any]:
    place = f"{text.board} sign" if text.place == "sign" else text.place
    return {"content": content, "font": text.font, "place": place, "size": text.size, "color": text.color}


def _lighting(scene: Scene) -> str:
    light = scene.light
    words = f"{light.warmth} light from {p.SIDE_WORDS[light.side]}"
    if light.side != "above":
        words = f"{light.height} {words}"
    if light.spot == "none":
        return words
    return f"{words}, a pool of light {'in the middle' if light.spot == 'middle' else f'on the {light.spot}'}"


def structured_prompt(scene: Scene) -> dict[str, Any]:
    """The scene as a structured prompt; it validates as `StructuredPrompt` without unknown fields."""
    places = _positions(scene)
    subjects = [_subject(subject, places[index]) for index, subject in enumerate(scene.subjects)]
    data: dict[str, Any] = {
        "scene": f"a studio picture of {p.floor_noun(scene.floor)}",
        "subjects": subjects,
        "style": "clean studio render",
        "color_palette": palette(scene),
        "lighting": _lighting(scene),
        "background": f"{p.floor_adjective(scene.floor)} floor",
        "composition": _COMPOSITIONS[arrange(scene).kind],
        "camera": {"angle": scene.camera.height, "distance": scene.camera.distance},
    }
    if scene.lettering is not None:
        data["texts"] = [_text(scene.lettering, line) for line in scene.lettering.lines]
    return {name: value for name, value in data.items() if value not in ([], "")}
