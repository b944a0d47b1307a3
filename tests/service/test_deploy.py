"""The files in deploy/: every setting and option that they name exists, every file that they copy is there."""

import configparser
import re
import shlex
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from licht.cli.main import run
from licht.service.settings import ENVIRONMENT_PREFIX, load_settings

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
SECRETS = {"POSTGRES_PASSWORD": "hush", "LINKS_SECRET": "hush"}


def unit() -> configparser.RawConfigParser:
    parser = configparser.RawConfigParser(strict=True)
    parser.optionxform = str  # type: ignore[assignment,method-assign]
    parser.read(DEPLOY / "licht.service", encoding="utf-8")
    return parser


def instructions() -> list[tuple[str, str]]:
    """(instruction, rest) of the Dockerfile, continued lines joined."""
    text = (DEPLOY / "Dockerfile").read_text(encoding="utf-8").replace("\\\n", " ")
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    return [(line.split()[0], line.split(maxsplit=1)[1]) for line in lines]


def compose(name: str = "compose.yaml") -> dict[str, Any]:
    document: dict[str, Any] = yaml.safe_load((DEPLOY / name).read_text(encoding="utf-8"))
    return document


def filled(text: str) -> str:
    """`${NAME:-default}` and `${NAME:?reason}` as compose fills them in."""
    return re.sub(r"\$\{(\w+)(?::-([^}]*)|:\?[^}]*)\}", lambda found: found[2] or SECRETS[found[1]], text)


def accepted(arguments: list[str], data: Path) -> None:
    """`licht serve` takes these options: it prints what would be in force, and starts nothing."""
    assert arguments[0] == "serve"
    own = [str(data) if argument.startswith(("/data", "/var/lib")) else argument for argument in arguments[1:]]
    own = [str(DEPLOY / "licht.toml") if argument.startswith("/etc/") else argument for argument in own]
    assert run(["serve", *own, "--check", "--json"]) == 0


def test_the_unit_starts_what_exists(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    service = unit()["Service"]
    program, *arguments = shlex.split(service["ExecStart"])
    assert Path(program).name == "licht"
    accepted(arguments, tmp_path)
    assert "flux.example" in capsys.readouterr().out


def test_the_unit_waits_longer_than_the_service_drains() -> None:
    service, settings = unit()["Service"], load_settings(DEPLOY / "licht.toml", {}, {})
    assert int(service["TimeoutStopSec"]) > settings.server.drain_s + 5
    assert service["KillMode"] == "mixed"
    assert service["RestartPreventExitStatus"] == "2"


def test_systemd_accepts_the_unit(tmp_path: Path) -> None:
    analyze = shutil.which("systemd-analyze")
    if analyze is None:
        pytest.skip("systemd-analyze is not installed")
    # the program is where the operator installs it; here another stands in its place
    text = (DEPLOY / "licht.service").read_text(encoding="utf-8").replace("/opt/licht/bin/licht", "/bin/true")
    path = tmp_path / "licht.service"
    path.write_text(text, encoding="utf-8")
    checked = subprocess.run([analyze, "verify", str(path)], capture_output=True, text=True, check=False, timeout=60)
    complaints = [line for line in checked.stderr.splitlines() if "licht.service" in line]
    assert complaints == []


def test_the_image_copies_what_is_there_and_starts_what_exists(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ignored = (DEPLOY / "Dockerfile.dockerignore").read_text(encoding="utf-8").split()
    kept = {line[1:] for line in ignored if line.startswith("!")}
    for name, rest in instructions():
        if name == "COPY" and not rest.startswith("--from"):
            for source in rest.split()[:-1]:
                assert (ROOT / source).exists()
                assert source.split("/")[0] in kept
    (command,) = [yaml.safe_load(rest) for name, rest in instructions() if name == "CMD"]
    accepted(command, tmp_path)
    assert '"host": "0.0.0.0"' in capsys.readouterr().out
    names = [name for name, _ in instructions()]
    assert names.count("FROM") == 2
    assert names.index("USER") > names.index("FROM", 1)


def test_what_the_package_needs_to_be_built_is_in_the_image() -> None:
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    (files,) = re.findall(r"license-files = \[(.*)\]", project)
    copied = " ".join(rest for name, rest in instructions() if name == "COPY").split()
    for needed in ("pyproject.toml", "README.md", *(name.strip(' "') for name in files.split(","))):
        assert needed in copied or needed.split("/")[0] in copied


def test_compose_sets_only_what_exists(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    services = compose()["services"]
    for name in ("api", "worker"):
        environment = {key: filled(str(value)) for key, value in services[name]["environment"].items()}
        assert all(key.startswith(ENVIRONMENT_PREFIX) for key in environment)
        settings = load_settings(None, {}, environment)
        assert settings.database_url == "postgresql://licht:hush@database/licht"
        assert str(settings.data) == "/data"
        accepted(services[name]["command"], tmp_path)
        capsys.readouterr()
        assert int(str(services[name]["stop_grace_period"]).removesuffix("s")) > settings.server.drain_s + 5
        assert services[name]["volumes"] == ["pictures:/data"]
    assert services["api"]["ports"] == ["127.0.0.1:8000:8000"]


def test_compose_files_fit_together() -> None:
    assert compose("compose.gpu.yaml")["services"].keys() <= compose()["services"].keys()
    named = {volume.split(":")[0] for service in compose()["services"].values() for volume in service["volumes"]}
    assert named == compose()["volumes"].keys()
