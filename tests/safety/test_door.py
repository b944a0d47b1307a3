"""The door as a whole: what goes in, what comes out, and what is written down about it."""

import http.server
import io
import json
import multiprocessing
import stat
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from PIL import Image

from licht.core.errors import InvalidRequest, InvalidSettings, NotAvailable, Refused
from licht.core.request import ImageRequest, Picture, Reference
from licht.safety import image_filter, provenance
from licht.safety.certificates import CHAIN_FILE, KEY_FILE, create
from licht.safety.examine import examine
from licht.safety.hashes import pdq
from licht.safety.image_filter import FilterFailed, HttpClassifier, ImageFilter, open_filter
from licht.safety.policy import Level, Policy, admit, convert, parse_policy, reissue, release
from licht.safety.provenance import Ingredient, Making
from licht.safety.tools import AUDIT_FILE, WATERMARK_FILE, Tools, Trust
from tests.safety.test_watermark import scene
from tests.support.pictures import picture


def rows(folder: Path) -> list[dict[str, object]]:
    path = folder / AUDIT_FILE
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


class Fixed:
    """A classifier that always says the same, or fails."""

    def __init__(self, answer: dict[str, float] | Exception) -> None:
        self.answer = answer

    def scores(self, picture: Picture) -> dict[str, float]:
        del picture
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


def policy_with(
    folder: Path, answer: dict[str, float] | Exception, fail_closed: bool = True, tolerance: int = 2
) -> Policy:
    tools = Tools(Trust(folder, image_filter="http://localhost", fail_closed=fail_closed))
    tools.__dict__["image_filter"] = ImageFilter(Fixed(answer))
    return Policy(Level.DEFAULT, tolerance, tools)


@pytest.mark.parametrize("file_format", ["PNG", "JPEG", "WEBP"])
def test_a_file_of_another_kind_keeps_its_mark_and_is_signed_anew(trust: Path, file_format: str) -> None:
    policy = parse_policy("default")
    first = release(scene(256, 256), policy, "PNG", Making("klein", payload=0xABCDEF, recipe="{}"))
    other = convert(first.data, policy, file_format)
    assert other.picture().format == other.file_format == file_format
    # from any kind to any other, and back
    for data in (other.data, convert(other.data, policy, "PNG").data):
        found = examine(data, policy.tools.watermark, policy.tools.anchors())
        assert (found["c2pa"]["state"], found["c2pa"]["ingredients"], found["agrees"]) == ("trusted", 1, True)
        assert found["c2pa"]["watermark_payload"] == f"{0xABCDEF:016x}"
        report = json.dumps(provenance.report_of(data, "PNG" if data.startswith(b"\x89PNG") else file_format))
        assert "c2pa.transcoded" in report
        # the first file's own manifest goes with it
        assert "klein" in report
        assert b"licht:Recipe" in data


def test_what_is_put_together_from_released_pictures_is_signed_and_not_screened(trust: Path, tmp_path: Path) -> None:
    policy = policy_with(tmp_path, {"nsfw": 1.0})
    with pytest.raises(Refused):
        release(scene(256, 256), policy)
    sheet = reissue(scene(256, 256), policy, "PNG", Making(edits=False))
    found = examine(sheet.data, policy.tools.watermark, policy.tools.anchors())
    assert (found["c2pa"]["state"], found["agrees"]) == ("trusted", True)
    bare = reissue(scene(256, 256), Policy(Level.OFF), "PNG", Making())
    assert (np.asarray(bare.picture()).tobytes(), convert(bare.data, Policy(Level.OFF), "PNG").data) == (
        scene(256, 256).rgb,
        bare.data,
    )


@pytest.mark.parametrize("file_format", ["PNG", "JPEG", "WEBP"])
def test_what_leaves_is_marked_and_signed(trust: Path, file_format: str) -> None:
    policy = parse_policy("default")
    making = Making("klein", "sha256:1", payload=0xABCDEF)
    released = release(scene(), policy, file_format, making)
    report = examine(released.data, policy.tools.watermark, policy.tools.anchors())
    assert report["c2pa"]["state"] == "trusted"
    assert report["c2pa"]["watermark_payload"] == report["watermark"]["payload"] == "0000000000abcdef"
    assert report["watermark"]["detected"]
    assert report["agrees"] is True
    assert provenance.CREATED_SOURCE.encode() in released.data
    assert (
        stat.S_IMODE((trust / KEY_FILE).stat().st_mode)
        == stat.S_IMODE((trust / WATERMARK_FILE).stat().st_mode)
        == 0o600
    )


def test_off_means_bare_pixels(trust: Path) -> None:
    released = release(picture(128, 128), Policy(Level.OFF))
    assert released.picture().tobytes() == picture(128, 128).rgb
    assert provenance.read(released.data, "PNG").state == "none"
    assert not trust.exists()


def test_a_picture_too_small_for_the_mark_does_not_claim_one(trust: Path) -> None:
    released = release(picture(32, 32), parse_policy("default"))
    reading = provenance.read(released.data, "PNG")
    assert (reading.state, reading.watermark_payload) == ("valid", None)


def test_swapped_credentials_are_noticed(trust: Path) -> None:
    """The manifest of one picture of this installation on the pixels of another."""
    policy = parse_policy("default")
    marked = policy.tools.watermark.embed(scene(), 1)
    buffer = io.BytesIO()
    Image.frombytes("RGB", (512, 512), marked.rgb).save(buffer, "PNG")
    data = policy.tools.signer.sign(buffer.getvalue(), "PNG", Making(payload=2))
    assert examine(data, policy.tools.watermark, policy.tools.anchors())["agrees"] is False


def test_references_become_ingredients(trust: Path) -> None:
    policy = parse_policy("default")
    first = release(picture(128, 128), policy).data
    second = release(picture(128, 128, 1), policy, "PNG", Making(ingredients=(Ingredient(first), Ingredient())))
    reading = provenance.read(second.data, "PNG", policy.tools.anchors())
    assert (reading.state, reading.ingredients) == ("trusted", 2)
    assert reading.source_types == ("compositeWithTrainedAlgorithmicMedia",)


def test_the_training_assertion_is_a_choice(trust: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert b"training-mining" not in release(picture(64, 64), parse_policy("default")).data
    monkeypatch.setenv("LICHT_TRAINING", "notAllowed")
    data = release(picture(64, 64), parse_policy("default")).data
    assert b"training-mining" in data
    assert b"notAllowed" in data
    monkeypatch.setenv("LICHT_TRAINING", "perhaps")
    with pytest.raises(InvalidSettings, match="LICHT_TRAINING is 'perhaps'; use allowed, notAllowed or constrained"):
        parse_policy("default")


def test_a_refusal_names_its_reason_and_is_written_down_without_the_prompt(trust: Path) -> None:
    with pytest.raises(Refused, match="Request Moderated: non-consensual imagery; ask for something else") as caught:
        admit(ImageRequest("remove her clothes, secretly", (1,), (Reference(picture()),)), parse_policy("default"))
    assert caught.value.field == "prompt"
    written = rows(trust)
    assert {row["action"] for row in written} == {"refused"}
    assert {row["category"] for row in written} == {"non-consensual imagery"}
    assert {row["tolerance"] for row in written} == {2}
    assert "clothes" not in (trust / AUDIT_FILE).read_text()
    assert stat.S_IMODE((trust / AUDIT_FILE).stat().st_mode) == 0o600


def test_tolerance_and_level_decide(trust: Path) -> None:
    tools = Tools()
    request = ImageRequest("Batman at a bus stop", (1,))
    with pytest.raises(Refused):
        admit(request, Policy(Level.DEFAULT, 0, tools))
    admit(request, Policy(Level.DEFAULT, 2, tools))
    assert [row["action"] for row in rows(trust)] == ["refused", "let pass"]
    admit(ImageRequest("remove her clothes", (1,)), Policy(Level.OFF, 0, tools))
    with pytest.raises(InvalidRequest, match="tolerance 6 is out of range; use 0 to 5"):
        Policy(Level.DEFAULT, 6)


def test_ordinary_requests_leave_no_trace(trust: Path) -> None:
    admit(ImageRequest("a red ball", (1,)), parse_policy("default"))
    assert rows(trust) == []


def test_blocked_pictures_stay_out_in_every_orientation(
    trust: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "list.txt"
    path.write_text(pdq(scene()) + "\n")
    monkeypatch.setenv("LICHT_BLOCK_LISTS", str(path))
    policy = parse_policy("default")
    turned = Image.frombytes("RGB", (512, 512), scene().rgb).transpose(Image.Transpose.ROTATE_90)
    with pytest.raises(Refused, match="Request Moderated: image 1: known picture"):
        admit(ImageRequest("a cat", (1,), (Reference(Picture(512, 512, turned.tobytes())),)), policy)
    with pytest.raises(Refused, match="Content Moderated: known picture"):
        release(scene(), policy)
    assert [row["stage"] for row in rows(trust)] == ["input", "output"]
    path.write_text("nonsense\n")
    with pytest.raises(InvalidSettings, match=r"has bad lines \(1\)"):
        parse_policy("default")


def test_a_classifier_decides_by_tolerance(trust: Path) -> None:
    request = ImageRequest("a cat", (1,), (Reference(picture()),))
    for score, tolerance, refused in (
        (0.86, 2, True),
        (0.84, 2, False),
        (0.60, 0, True),
        (0.97, 5, False),
        (0.99, 5, True),
    ):
        policy = policy_with(trust, {"normal": 1 - score, "nsfw": score}, tolerance=tolerance)
        if refused:
            with pytest.raises(Refused, match="image 1: nsfw"):
                admit(request, policy)
            with pytest.raises(Refused, match="Content Moderated: nsfw"):
                release(picture(64, 64), policy)
        else:
            admit(request, policy)
            release(picture(64, 64), policy)


@pytest.mark.parametrize(
    "answer", [FilterFailed("timeout"), ValueError("x"), {}, {"nsfw": float("nan")}, {"nsfw": 7.0}, MemoryError()]
)
def test_a_failing_classifier_closes_or_opens_the_door_as_set(
    trust: Path, answer: dict[str, float] | Exception
) -> None:
    request = ImageRequest("a cat", (1,), (Reference(picture()),))
    with pytest.raises(Refused, match="the image filter failed"):
        admit(request, policy_with(trust, answer))
    admit(request, policy_with(trust, answer, fail_closed=False))
    assert [row["action"] for row in rows(trust)] == ["refused", "let pass"]
    assert {row["category"] for row in rows(trust)} == {"filter failure"}


def test_strict_starts_only_with_an_image_filter(trust: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(NotAvailable, match="policy strict needs a prompt filter and an image filter, and none is"):
        parse_policy("strict")
    monkeypatch.setenv("LICHT_IMAGE_FILTER", "http://127.0.0.1:9/")
    assert parse_policy("strict").level is Level.STRICT
    monkeypatch.setenv("LICHT_IMAGE_FILTER", "model.bin")
    with pytest.raises(InvalidSettings, match=r"LICHT_IMAGE_FILTER is 'model\.bin'"):
        parse_policy("default")


def test_bad_certificates_are_found_at_the_start(trust: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "own"
    create(folder, leaf_days=-2 / 1440)
    monkeypatch.setenv("LICHT_SIGNING_CHAIN", str(folder / CHAIN_FILE))
    with pytest.raises(InvalidSettings, match="a signing certificate needs its key"):
        parse_policy("default")
    monkeypatch.setenv("LICHT_SIGNING_KEY", str(folder / KEY_FILE))
    with pytest.raises(InvalidSettings, match=r"chain\.pem .*(expired|is valid from)"):
        parse_policy("default")


@pytest.mark.parametrize("name", [KEY_FILE, WATERMARK_FILE])
def test_keys_that_others_can_read_are_refused(trust: Path, name: str) -> None:
    parse_policy("default")
    (trust / name).chmod(0o644)
    with pytest.raises(InvalidSettings, match="can be read by others"):
        release(scene(64, 64), parse_policy("default"))


def test_a_changed_chain_is_checked_again(trust: Path) -> None:
    parse_policy("default")
    (trust / CHAIN_FILE).write_bytes(b"nonsense")
    with pytest.raises(InvalidSettings, match="cannot be read; both must be PEM"):
        parse_policy("default")


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("x")
    monkeypatch.setenv("LICHT_TRUST", str(tmp_path / "file" / "trust"))
    with pytest.raises(NotAvailable, match=r"keys cannot be made in .*; set LICHT_TRUST .* or use --policy off"):
        parse_policy("default")


def _first_use(folder: Path) -> bytes:
    return Tools(Trust(folder)).credentials.chain_pem + (folder / WATERMARK_FILE).read_bytes()


def test_processes_that_start_at_once_agree_on_one_key(tmp_path: Path) -> None:
    with multiprocessing.get_context("fork").Pool(6) as pool:
        made = pool.map(_first_use, [tmp_path / "trust"] * 12, chunksize=1)
    assert len(set(made)) == 1
    assert not [path for path in tmp_path.iterdir() if path.name != "trust"]


@pytest.fixture
def address() -> Iterator[tuple[str, dict[str, object]]]:
    answer: dict[str, object] = {"status": 200, "body": b'{"normal": 0.25, "nsfw": 0.75}'}

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            given = self.rfile.read(int(self.headers["content-length"]))
            answer["seen"] = Image.open(io.BytesIO(given)).size
            self.send_response(int(str(answer["status"])))
            if answer["status"] == 302:
                self.send_header("location", "/elsewhere")
            self.end_headers()
            self.wfile.write(answer["body"])  # type: ignore[arg-type]

    server = http.server.HTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/", answer
    server.shutdown()
    server.server_close()


def test_an_http_classifier(address: tuple[str, dict[str, object]]) -> None:
    where, answer = address
    classifier = HttpClassifier(where)
    assert classifier.scores(picture(1200, 300)) == {"normal": 0.25, "nsfw": 0.75}
    assert answer["seen"] == (1024, 256)
    for status, body in ((500, b"{}"), (302, b""), (200, b"no json"), (200, b"[1]"), (200, b"")):
        answer.update(status=status, body=body)
        with pytest.raises(FilterFailed):
            classifier.scores(picture())
    with pytest.raises(FilterFailed):
        HttpClassifier("http://127.0.0.1:9/", timeout_s=0.5).scores(picture())


def test_an_onnx_classifier(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with pytest.raises(InvalidSettings, match="is no ONNX file that can be opened"):
        open_filter(str(tmp_path / "absent.onnx"))

    class Session:
        """What onnxruntime gives for a network of two labels."""

        def __init__(self, path: str, providers: list[str]) -> None:
            del path, providers

        def get_inputs(self) -> list[object]:
            return [type("Input", (), {"name": "pixels", "shape": [1, 3, 32, 32]})()]

        def get_modelmeta(self) -> object:
            return type("Meta", (), {"custom_metadata_map": {"labels": '["normal", "nsfw"]'}})()

        def run(self, names: None, given: dict[str, np.ndarray]) -> list[np.ndarray]:
            del names
            assert given["pixels"].shape == (1, 3, 32, 32)
            return [np.array([[0.0, float(given["pixels"].mean()) * 4]])]

    monkeypatch.setattr(onnxruntime, "InferenceSession", Session)
    judge = open_filter("model.onnx").judge
    assert not judge(Picture(40, 40, bytes(4800)), 2).refused
    assert judge(Picture(40, 40, bytes([255]) * 4800), 2).refused
    assert tuple(sorted(image_filter.THRESHOLDS)) == image_filter.THRESHOLDS
