"""What lies in the folder: the published runtime, and one table of texts. No browser needed."""

import hashlib
import io
import re

from PIL import Image

from licht.safety import provenance
from licht.service.api.studio import FOLDER

CALL = re.compile(r'(?<![\w.])t\(\s*"((?:[^"\\]|\\.)*)"')
ROW = re.compile(r'^  "((?:[^"\\]|\\.)*)": "((?:[^"\\]|\\.)*)",$', re.MULTILINE)
PLACE = re.compile(r"\{(\w+)\}")
TEMPLATE = re.compile(r'^  \["([^"]+)", \{', re.MULTILINE)

PUBLISHED = {
    "preact.js": "bdcbd9abdf2c77c5c45326eab42191e949222d479d0d5f69467387a77040cb55",
    "hooks.js": "e862ab2973aa6455eaa0f77c5d832d2157d6be59a17c8ba546550a575b58c6b4",
    "htm.js": "ab33dd3f38059b9be4d5f5350128eefb2356639c4e0bbe9d9e8b3ba75847e9e4",
    "inter.woff2": "3100e775e8616cd2611beecfa23a4263d7037586789b43f035236a2e6fbd4c62",
}
"""SHA-256 of the files as their makers publish them."""
MAPS = {"preact.js": "preact.mjs.map", "hooks.js": "hooks.mjs.map"}


def test_the_runtime_is_what_was_published() -> None:
    for name, digest in PUBLISHED.items():
        data = (FOLDER / "vendor" / name).read_bytes()
        if name in MAPS:
            # two changes were made: where the other file is, and no mention of a map that is not here
            data = data.replace(b'from"./preact.js"', b'from"preact"') + f"//# sourceMappingURL={MAPS[name]}\n".encode()
        assert hashlib.sha256(data).hexdigest() == digest, name
    told = (FOLDER / "vendor" / "README.md").read_text(encoding="utf-8")
    assert all(name in told for name in PUBLISHED)


def test_every_text_has_its_german() -> None:
    rows = dict(ROW.findall((FOLDER / "text.js").read_text(encoding="utf-8")))
    used: set[str] = set()
    for path in FOLDER.glob("*.js"):
        if path.name != "text.js":
            used |= set(CALL.findall(path.read_text(encoding="utf-8")))
    used |= set(TEMPLATE.findall((FOLDER / "samples.js").read_text(encoding="utf-8")))
    assert used - set(rows) == set()
    assert set(rows) - used == set()
    for english, german in rows.items():
        assert set(PLACE.findall(english)) == set(PLACE.findall(german)), english


def test_what_the_page_translates_is_what_the_service_says() -> None:
    rows = dict(ROW.findall((FOLDER / "said.js").read_text(encoding="utf-8")))
    assert len(rows) > 15
    sources = "".join(path.read_text(encoding="utf-8") for path in FOLDER.parent.rglob("*.py"))
    # a message may begin on one line of the source and end on the next
    sources = re.sub(r'"\s*f?"', "", sources)
    for english, german in rows.items():
        assert set(PLACE.findall(german)) <= set(PLACE.findall(english)), english
        for part in re.split(r"\{\w+\}", english):
            assert part in sources, english


def test_every_sample_has_its_picture() -> None:
    text = (FOLDER / "samples.js").read_text(encoding="utf-8")
    prompts = re.findall(r'^  \["[^"]+", \d+\],$', text, re.MULTILINE)
    data = (FOLDER / "samples.webp").read_bytes()
    with Image.open(io.BytesIO(data)) as image:
        assert image.size == (128, 128 * len(prompts))
    assert provenance.read(data, "WEBP").state in ("valid", "trusted")


def test_the_page_names_every_module_at_once() -> None:
    """So that the browser does not learn of them one after the other."""
    page = (FOLDER / "index.html").read_text(encoding="utf-8")
    modules = {path.relative_to(FOLDER).as_posix() for path in FOLDER.rglob("*.js")}
    assert set(re.findall(r'(?:href|src)="/studio/([^"]+\.js)"', page)) == modules
