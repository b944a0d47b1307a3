"""The sentences of the world as tables: (templates for training, templates for testing only).

Words are lower case; only what is to be printed is in capitals, in quotes. Templates for testing use no word that the
ones for training lack, so that what is new about them is how they are put together. Noun phrases come with their
article.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

Templates = Mapping[str, tuple[tuple[str, ...], tuple[str, ...]]]

RELATIONS: Final[Templates] = MappingProxyType(
    {
        "pair": (
            (
                "{a} to the left of {b}",
                "{b} to the right of {a}",
                "{a} left of {b}",
                "{b} right of {a}",
                "{a} on the left and {b} on the right",
                "on the left {a}, on the right {b}",
            ),
            ("to the left of {b}, {a}", "to the right of {a}, {b}", "{b} on the right and {a} on the left"),
        ),
        "depth": (
            (
                "{a} in front of {b}",
                "{b} behind {a}",
                "{a} in the foreground and {b} in the background",
                "in front {a}, behind it {b}",
            ),
            ("behind {a}, {b}", "in the background {b}, in the foreground {a}"),
        ),
        "three": (
            (
                "{a}, {b} and {c} in a row",
                "a row of {a}, {b} and {c}",
                "from left to right {a}, {b} and {c}",
                "{a}, {b} and {c} from left to right",
            ),
            ("in a row from left to right {a}, {b} and {c}",),
        ),
        "columns": (
            (
                "on the left {a}, in the middle {b}, on the right {c}",
                "{a} on the left, {b} in the middle and {c} on the right",
            ),
            ("in the middle {b}, on the left {a}, on the right {c}",),
        ),
        "row": (
            ("from left to right {list}", "{list} in a row", "a row of {list}", "{list} from left to right"),
            ("in a row from left to right {list}",),
        ),
        "rows": (
            (
                "in the back row {back}, in the front row {front}",
                "{back} in the back row and {front} in the front row",
                "back row from left to right: {back}; front row from left to right: {front}",
            ),
            ("in the front row {front}, in the back row {back}",),
        ),
        "side": (("{a} on the {side}", "on the {side} {a}"), ("on the {side} there is {a}",)),
        "middle": (("{a} in the middle", "in the middle {a}"), ("in the middle there is {a}",)),
        "stack": (
            ("{a} on top of {b}", "{a} standing on {b}", "{b} with {a} on top", "{a} on {b}"),
            ("{b} and on top of it {a}",),
        ),
        "twins": (("three {things} in a row", "a row of three {things}"), ("in a row three {things}",)),
    }
)

SURROUNDINGS: Final[Templates] = MappingProxyType(
    {
        "floor": (("on {floor}", "standing on {floor}", "placed on {floor}"), ("and below {floor}",)),
        "floor_first": (("on {floor} {s}", "on {floor}, {s}"), ("on {floor} there is {s}",)),
        "floor_first_placed": (("on {floor}, {s}",), ("{floor}, and {s}",)),
        "floor_alone": (("an empty picture of {floor}", "nothing but {floor}"), ("{floor} and nothing else",)),
        "floor_sentence": (
            ("everything stands on {floor}.", "below is {floor}.", "the floor is {surface}."),
            ("the picture shows {floor}.",),
        ),
        "light": (
            ("{light} from {side}", "lit from {side}{by}", "the {light} comes from {side}"),
            ("from {side} comes {light}",),
        ),
        "light_sentence": (
            ("the {light} comes from {side}.", "{light} comes from {side}.", "it is lit from {side}{by}."),
            ("from {side} comes {light}.",),
        ),
        "spot_middle": (
            ("light in the middle", "a spotlight in the middle", "a pool of light in the middle"),
            ("in the middle a pool of light",),
        ),
        "spot_side": (
            ("light on the {side}", "a spotlight on the {side}", "a pool of light on the {side}"),
            ("on the {side} a pool of light",),
        ),
        "camera_low": (
            ("low camera", "seen from a low camera", "a low camera angle", "seen from below"),
            ("the camera is low",),
        ),
        "camera_high": (
            ("high camera", "seen from a high camera", "a high camera angle", "seen from high above"),
            ("the camera is high",),
        ),
        "camera_eye level": (
            ("camera at eye level", "seen at eye level", "an eye level camera angle"),
            ("the camera is at eye level",),
        ),
        "camera_close": (("close up", "seen from close up", "a close shot"), ("the camera is close",)),
        "camera_medium": (("a medium shot", "seen from a medium distance"), ("the camera is at a medium distance",)),
        "camera_far": (("far away", "seen from far away", "a far shot"), ("the camera is far away",)),
    }
)

LETTERING: Final[Templates] = MappingProxyType(
    {
        "top": (
            (
                "the {word} {text} on top",
                "the {word} {text} at the top",
                "{text} written at the top",
                "{text} at the top in {style}",
                "the {word} {text} on top in {style}",
                "the {word} {text} in {style} at the top",
            ),
            ("at the top the {word} {text}", "at the top {text} in {style}"),
        ),
        "bottom": (
            (
                "the {word} {text} at the bottom",
                "{text} written at the bottom",
                "{text} at the bottom in {style}",
                "the {word} {text} at the bottom in {style}",
                "the {word} {text} in {style} at the bottom",
            ),
            ("at the bottom the {word} {text}",),
        ),
        "sign": (
            (
                "{sign} with the {word} {text}",
                "{sign} that says {text}",
                "{sign} that says {text} in {style}",
                "{sign} with the {word} {text} in {style}",
                "the {word} {text} on {sign}",
            ),
            ("{text} in {style} on {sign}",),
        ),
        "two": (("{first} and {second} in two lines", "{first} above {second}", "{first} over {second}"), ()),
    }
)

NEGATIONS: Final[Templates] = MappingProxyType(
    {
        "text": (("no text", "without text", "no words"), ("without words",)),
        "else": (("nothing else", "no other objects", "without other objects"), ("and nothing else",)),
        "shape": (("no {shape}", "without a {shape}", "none of them a {shape}"), ("without any {shape}",)),
        "color": (("nothing {color}", "none of them {color}", "without any {color}"), ("no {color}",)),
        "pattern": (("no {pattern}", "without {pattern}", "plain without {pattern}"), ("without any {pattern}",)),
        "hat": (("without a hat", "no hat", "wearing no hat"), ("without any hat",)),
        "some": (("{count}", "a picture of {count}", "{count} in a row"), ("we see {count}",)),
        "some_one": (("{count}", "a picture of {count}", "there is {count}"), ("the picture shows {count}",)),
    }
)

SENTENCES: Final[Templates] = MappingProxyType(
    {
        "opening": (
            ("the picture shows {s}.", "there is {s}.", "a studio picture of {s}.", "we see {s}.", "{s}."),
            ("a picture with {s}.", "in the picture there is {s}."),
        ),
        "opening_placed": (("the picture shows {s}.", "we see {s}.", "{s}."), ("in the picture we see {s}.",)),
        "text": (("it shows {t}.", "there is {t}.", "{t}."), ("we see {t}.",)),
        "seen": (("{c}.", "it is {c}."), ("the picture is {c}.",)),
        "shot": (("{c}.", "this is {c}."), ("the picture is {c}.",)),
        "spot": (("there is {l}.", "{l}."), ("we see {l}.",)),
    }
)

EDITS: Final[Templates] = MappingProxyType(
    {
        "recolor": (
            (
                "make {a} {color}",
                "change the color of {a} to {color}",
                "turn {a} {color}",
                "paint {a} {color}",
                "{a} should be {color}",
            ),
            ("change {a} to {color}", "the color of {a} should be {color}"),
        ),
        "restyle": (
            ("make {a} {look}", "turn {a} into {new}", "change {a} to be {look}", "{a} should be {look}"),
            ("change {a} into {new}",),
        ),
        "pattern_on": (
            ("add {color} {pattern} to {a}", "give {a} {color} {pattern}", "put {color} {pattern} on {a}"),
            ("put on {a} {color} {pattern}",),
        ),
        "pattern_off": (
            ("remove the {pattern} from {a}", "take the {pattern} off {a}", "make {a} plain without {pattern}"),
            ("{a} should be plain without {pattern}",),
        ),
        "resize": (
            ("make {a} {size}", "change the size of {a} to {size}", "turn {a} into {new}", "{a} should be {size}"),
            ("the size of {a} should be {size}",),
        ),
        "move": (
            ("move {a} {place}", "put {a} {place}", "place {a} {place}", "{a} should be {place}"),
            ("change the place of {a} to be {place}",),
        ),
        "add": (("add {new} {place}", "put {new} {place}", "place {new} {place}"), ("there should be {new} {place}",)),
        "remove": (
            ("remove {a}", "take {a} away", "delete {a}", "erase {a}"),
            ("take {a} away from the picture", "remove {a} from the picture"),
        ),
        "replace": (
            ("replace {a} with {new}", "change {a} into {new}", "turn {a} into {new}", "swap {a} for {new}"),
            ("put {new} in the place of {a}", "instead of {a} there should be {new}"),
        ),
        "relight": (
            (
                "light the scene from {side}{by}",
                "make the {light} come from {side}",
                "change the light to come from {side}{be}",
                "the light should come from {side}{be}",
            ),
            ("the {light} should come from {side}",),
        ),
        "warmth": (
            ("make the light {warmth}", "change the light to {warmth} light", "the light should be {warmth}"),
            ("use {warmth} light",),
        ),
        "floor": (
            (
                "change the floor to {floor}",
                "make the floor {surface}",
                "replace the floor with {floor}",
                "put everything on {floor}",
                "use {floor}",
            ),
            ("the floor should be {surface}", "place everything on {floor}"),
        ),
        "text": (
            (
                "change the {word} {old} to {new}",
                "replace {old} with {new}",
                "make the {word} say {new}",
                "the {word} should say {new}",
                "write {new} instead of {old}",
            ),
            ("instead of {old} the {word} should say {new}", "change {old} into {new}"),
        ),
        "text_color": (
            ("make the letters {color}", "change the color of the {word} to {color}", "the {word} should be {color}"),
            ("paint the letters {color}",),
        ),
        "text_add": (
            ("add {t}", "write {new} at the {place} in {color} letters", "put {t}"),
            ("there should be {t}",),
        ),
        "text_remove": (
            ("remove the {word}", "take the {word} away", "erase the {word} {old}", "delete the {word} {old}"),
            ("remove {old} from the picture",),
        ),
        "camera_height": (
            ("show it from a {height} camera", "use a {height} camera", "change the camera to be {height}"),
            ("the camera should be {height}",),
        ),
        "camera_eye level": (
            ("show it at eye level", "use a camera at eye level", "change the camera to be at eye level"),
            ("the camera should be at eye level",),
        ),
        "camera_distance": (
            ("move the camera {distance}", "change the camera to be {distance}", "show it from {distance}"),
            ("the camera should be {distance}",),
        ),
        "keep": (
            (
                ", keep everything else",
                ", keep the rest as it is",
                ", everything else stays the same",
                " and change nothing else",
            ),
            (", the rest stays as it is",),
        ),
    }
)

TASKS: Final[Templates] = MappingProxyType(
    {
        "subject": (
            ("the {noun} of image {n}", "the {noun} from image {n}", "the {noun} in image {n}"),
            ("the {noun} that image {n} shows",),
        ),
        "verb": (("place", "put", "a picture of", "show"), ("we see",)),
        "floor": (
            ("on the floor of image {n}", "standing on the floor from image {n}"),
            ("on the floor that image {n} shows",),
        ),
        "light": (
            ("in the light of image {n}", "with the light from image {n}", "lit as in image {n}"),
            ("with light as in image {n}",),
        ),
        "colors": (
            (
                "in the colors of image {n}",
                "with the colors from image {n}",
                "in the colors of image {n} from left to right",
            ),
            ("with the colors of image {n} from left to right",),
        ),
        "color": (("in the color of image {n}", "with the color from image {n}"), ("with the color of image {n}",)),
        "lettering": (
            ("in the lettering of image {n}", "with the lettering from image {n}", "in the letters of image {n}"),
            ("with the letters of image {n}",),
        ),
        "depth": (
            (
                "follow the depth of image {n}: {s}",
                "{s}, with the depth of image {n}",
                "use the depth from image {n}: {s}",
            ),
            ("{s}, follow the depth from image {n}",),
        ),
        "edges": (
            (
                "follow the edges of image {n}: {s}",
                "{s}, with the edges of image {n}",
                "use the edges from image {n}: {s}",
            ),
            ("{s}, follow the edges from image {n}",),
        ),
        "over": (
            ("{text} at the {place}", "the {word} {text} at the {place}", "{text} written at the {place}"),
            ("at the {place} {text}",),
        ),
    }
)

ALL: Final[tuple[Templates, ...]] = (RELATIONS, SURROUNDINGS, LETTERING, NEGATIONS, SENTENCES, EDITS, TASKS)
