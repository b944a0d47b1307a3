import errno
import io
import os
import re
import signal
import stat
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from licht.core.errors import InvalidOutput, InvalidPrompt, InvalidRequest, NotAvailable, OutputExists, OutputFailed
from licht.core.request import ImageRequest, Picture
from licht.safety import policy as door
from licht.safety.policy import Level, Policy, Released, admit, check_output, format_of, parse_policy, release, write
from tests.support.bounds import full_disk
from tests.support.pictures import image, picture, pixels

BARE = Policy(Level.OFF)
NEW, OLD = Released(b"the new picture", "PNG"), b"the old picture"


def names(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir()]


def test_policies_by_name() -> None:
    assert parse_policy("off") == Policy(Level.OFF)
    assert parse_policy("default") == Policy() == Policy(Level.DEFAULT)


@pytest.mark.parametrize("name", ["", "Default", "none", "off "])
def test_an_unknown_policy_is_refused(name: str) -> None:
    message = f"policy {name!r} is unknown; choose one of off, default, strict"
    with pytest.raises(InvalidRequest, match=re.escape(message)) as caught:
        parse_policy(name)
    assert caught.value.field == "policy"


def test_strict_is_refused_where_nothing_stands_behind_it() -> None:
    with pytest.raises(NotAvailable, match="policy strict needs a prompt filter and an image filter, and none is") as e:
        parse_policy("strict")
    assert e.value.exit_code == 2


@pytest.mark.parametrize("prompt", ["", "a cat\n\tin two\r\nlines", "Fluß 一只猫 🦊", "x" * 32_768, "\u202e\u200d"])
def test_text_is_admitted(prompt: str) -> None:
    for level in (Level.OFF, Level.DEFAULT):
        admit(ImageRequest(prompt, (1,)), Policy(level))


@pytest.mark.parametrize(
    ("prompt", "message"),
    [
        ("a\0b", "the prompt holds control characters (U+0000 is character 2); send plain text"),
        ("\x1b[31mred", "(U+001B is character 1)"),
        ("abc\x7f", "(U+007F is character 4)"),
        ("\x85", "(U+0085 is character 1)"),
        ("bytes \udcff", "(U+DCFF is character 7)"),
        ("x" * 32_769, "the prompt has 32,769 characters; use at most 32,768"),
    ],
)
def test_what_is_no_text_is_refused(prompt: str, message: str) -> None:
    for level in (Level.OFF, Level.DEFAULT):
        with pytest.raises(InvalidPrompt, match=re.escape(message)) as caught:
            admit(ImageRequest(prompt, (1,)), Policy(level))
        assert caught.value.field == "prompt"


@pytest.mark.parametrize(("file_format", "tolerance"), [("PNG", 0), ("JPEG", 4), ("WEBP", 8)])
def test_a_released_picture_is_a_file_of_its_format(file_format: str, tolerance: int) -> None:
    given = Picture(48, 32, image(48, 32).tobytes())
    released = release(given, BARE, file_format)
    assert released.file_format == file_format
    opened = Image.open(io.BytesIO(released.data))
    assert (opened.format, opened.mode, opened.size) == (file_format, "RGB", (48, 32))
    assert np.abs(np.asarray(opened).astype(int) - pixels(given)).max() <= tolerance
    assert released.picture().tobytes() == opened.tobytes()


def test_the_same_picture_is_released_as_the_same_bytes() -> None:
    assert release(picture(), BARE) == release(picture(), BARE)
    assert release(picture(), BARE) != release(picture(seed=1), BARE)


@pytest.mark.parametrize("file_format", ["GIF", "png", ""])
def test_an_unknown_format_is_refused(file_format: str) -> None:
    message = f"format {file_format!r} is unknown; use PNG, JPEG or WEBP"
    with pytest.raises(InvalidOutput, match=re.escape(message)):
        release(picture(), BARE, file_format)


@pytest.mark.parametrize(
    ("name", "file_format"),
    [("a.png", "PNG"), ("a.PNG", "PNG"), ("a.jpg", "JPEG"), ("a.b.JPEG", "JPEG"), ("x/y.webp", "WEBP")],
)
def test_the_suffix_tells_the_format(name: str, file_format: str) -> None:
    assert format_of(Path(name)) == file_format


@pytest.mark.parametrize("name", ["a", "a.gif", "a.png.exe", ".png", "", ".", "..", "a.", "x.png/"])
def test_an_unknown_suffix_is_refused(name: str) -> None:
    if name == "x.png/":
        assert format_of(Path(name)) == "PNG"  # the path is that of x.png; that it is a folder is found elsewhere
        return
    with pytest.raises(InvalidOutput, match=r"has no suffix of a known format; use \.png, \.jpg, \.jpeg, \.webp") as e:
        format_of(Path(name))
    assert e.value.field == "output"


def test_a_path_where_no_picture_can_go_is_refused(tmp_path: Path) -> None:
    (tmp_path / "folder.png").mkdir()
    (tmp_path / "file").write_bytes(OLD)
    for path, message in (
        (tmp_path / "folder.png", "folder.png is a folder; name a file"),
        (
            tmp_path / "absent" / "a.png",
            f"the folder {tmp_path / 'absent'} does not exist; create it or choose another",
        ),
        (tmp_path / "file" / "a.png", f"the folder {tmp_path / 'file'} does not exist"),
        (tmp_path / ("x" * 300 + ".png"), "cannot be written (File name too long); choose another name"),
        (tmp_path / "a\0.png", "cannot be written (embedded null byte); choose another name"),
    ):
        with pytest.raises(InvalidOutput, match=re.escape(message)) as caught:
            check_output(path, overwrite=True)
        assert (caught.value.field, caught.value.exit_code) == ("output", 2)


def test_a_folder_that_cannot_be_written_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "access", lambda path, mode: not mode & os.W_OK)
    with pytest.raises(InvalidOutput, match=re.escape(f"the folder {tmp_path} cannot be written; choose another")):
        check_output(tmp_path / "a.png", overwrite=False)


@pytest.mark.skipif(os.geteuid() == 0, reason="nothing is forbidden to root")
def test_a_folder_without_permission_is_refused(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(InvalidOutput, match="cannot be written; choose another"):
        check_output(tmp_path / "a.png", overwrite=False)


def test_a_file_is_written_whole(tmp_path: Path) -> None:
    write(NEW, tmp_path / "a.png")
    assert (tmp_path / "a.png").read_bytes() == NEW.data
    assert names(tmp_path) == ["a.png"]


def test_the_longest_name_that_a_file_can_have_can_be_written(tmp_path: Path) -> None:
    path = tmp_path / ("x" * 251 + ".png")
    write(NEW, path)
    assert path.read_bytes() == NEW.data


def test_nothing_is_overwritten_in_silence(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(OLD)
    with pytest.raises(OutputExists, match=r"a\.png exists; choose another name or pass --overwrite"):
        write(NEW, path)
    assert path.read_bytes() == OLD
    write(NEW, path, overwrite=True)
    assert path.read_bytes() == NEW.data
    assert names(tmp_path) == ["a.png"]


def test_a_link_counts_as_a_file_wherever_it_leads(tmp_path: Path) -> None:
    path, target = tmp_path / "a.png", tmp_path / "target"
    path.symlink_to(target)
    with pytest.raises(OutputExists):
        write(NEW, path)
    assert not target.exists()
    write(NEW, path, overwrite=True)
    assert not target.exists()
    assert path.read_bytes() == NEW.data


def test_a_name_that_is_taken_meanwhile_is_not_overwritten(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, publish = tmp_path / "a.png", door._publish

    def late(temporary: Path, target: Path, overwrite: bool) -> None:
        path.write_bytes(OLD)
        publish(temporary, target, overwrite)

    monkeypatch.setattr(door, "_publish", late)
    with pytest.raises(OutputExists, match=r"a\.png exists"):
        write(NEW, path)
    assert path.read_bytes() == OLD
    assert names(tmp_path) == ["a.png"]


def test_a_file_system_without_hard_links_will_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def unsupported(*args: object) -> None:
        raise OSError(errno.EOPNOTSUPP, "Operation not supported")

    monkeypatch.setattr(os, "link", unsupported)
    write(NEW, tmp_path / "a.png")
    assert (tmp_path / "a.png").read_bytes() == NEW.data
    with pytest.raises(OutputExists):
        write(NEW, tmp_path / "a.png")
    assert names(tmp_path) == ["a.png"]


@pytest.mark.parametrize(("mask", "mode"), [(0o022, 0o644), (0o077, 0o600), (0o002, 0o664)])
def test_permissions_are_those_of_any_new_file(tmp_path: Path, mask: int, mode: int) -> None:
    before = os.umask(mask)
    try:
        write(NEW, tmp_path / "a.png")
    finally:
        assert os.umask(before) == mask
    assert stat.S_IMODE((tmp_path / "a.png").stat().st_mode) == mode


@pytest.mark.parametrize("overwrite", [False, True])
def test_what_does_not_fit_on_the_disk_leaves_nothing(tmp_path: Path, overwrite: bool) -> None:
    path = tmp_path / "a.png"
    message = f"{path} cannot be written (File too large); make room or choose another place"
    with full_disk(10), pytest.raises(OutputFailed, match=re.escape(message)) as caught:
        write(NEW, path, overwrite)
    assert (caught.value.field, caught.value.exit_code) == ("output", 2)
    assert names(tmp_path) == []


@pytest.mark.parametrize("step", ["fsync", "replace"])
@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "No space left on device"), KeyboardInterrupt()])
def test_a_failure_leaves_the_old_file_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str, error: BaseException
) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(OLD)

    def fail(*args: Any) -> None:  # noqa: ANN401
        raise error

    monkeypatch.setattr(os, step, fail)
    wanted = OutputFailed if isinstance(error, OSError) else KeyboardInterrupt
    with pytest.raises(wanted):
        write(NEW, path, overwrite=True)
    assert path.read_bytes() == OLD
    assert names(tmp_path) == ["a.png"]


KILLED = """
    import os, sys
    from pathlib import Path
    from licht.safety import policy
    os.fsync = lambda descriptor: (print("writing", flush=True), sys.stdin.read())
    policy.write(policy.Released(b"x" * 100_000, "PNG"), Path(sys.argv[1]), overwrite=True)
"""


@pytest.mark.parametrize("exists", [True, False])
def test_a_kill_in_the_middle_leaves_the_old_file_or_none(tmp_path: Path, exists: bool) -> None:
    path = tmp_path / "a.png"
    if exists:
        path.write_bytes(OLD)
    command = [sys.executable, "-c", textwrap.dedent(KILLED), str(path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"writing\n"
        process.send_signal(signal.SIGKILL)
    assert process.returncode == -signal.SIGKILL
    assert (path.read_bytes() == OLD) if exists else not path.exists()
