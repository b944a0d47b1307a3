import subprocess
import sys
import zipfile
from pathlib import Path


def test_the_wheel_ships_everything_below_the_package(root: Path, files: list[Path], tmp_path: Path) -> None:
    """Built as `pip` would, with the build backend of the lock: weights, fonts and pages must not be left behind."""
    build = subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", str(tmp_path)],
        cwd=root,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert build.returncode == 0, build.stderr
    (wheel,) = tmp_path.glob("lichtung-*.whl")
    with zipfile.ZipFile(wheel) as archive:
        sizes = {info.filename: info.file_size for info in archive.infolist()}
        (entry_points,) = (archive.read(name).decode() for name in sizes if name.endswith("entry_points.txt"))
    expected = {
        path.relative_to(root / "src").as_posix(): path.stat().st_size for path in files if root / "src" in path.parents
    }
    assert {name: sizes.get(name) for name in expected} == expected
    assert "licht/py.typed" in expected
    assert "licht = licht.cli.main:main" in entry_points
    assert any(name.endswith("licenses/LICENSE") for name in sizes)
