"""Dockerfile and compose file: linted, and as closed as the documentation says. No container is run."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from llm_i2i.cli import _parser
from tests.conftest import ROOT

DOCKERFILE = (ROOT / "deploy/Dockerfile").read_text(encoding="utf-8")
COMPOSE = yaml.safe_load((ROOT / "deploy/compose.yaml").read_text(encoding="utf-8"))


def lint(program: str, *arguments: str) -> None:
    beside = Path(sys.executable).with_name(program)
    found = beside if beside.exists() else shutil.which(program)
    if found is None:
        pytest.skip(f"no {program} here: it is a package of extra `dev`")
    done = subprocess.run([found, *arguments], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_hadolint() -> None:
    lint("hadolint", "deploy/Dockerfile")


def test_compose_file_fits_its_schema() -> None:
    lint("check-jsonschema", "--builtin-schema", "vendor.compose-spec", "deploy/compose.yaml")


def test_the_image_runs_as_nobody_in_particular_and_tells_its_health() -> None:
    build, final = re.split(r"^FROM ", DOCKERFILE, flags=re.MULTILINE)[1:]
    assert "pip install" in build
    assert "pip install" not in final
    assert re.search(r"^USER [1-9]\d+:[1-9]\d+$", final, re.MULTILINE)
    assert re.search(r"^HEALTHCHECK .*/readyz", final, re.MULTILINE | re.DOTALL)
    copied = re.findall(r"^COPY (?!--from)(.+) \S+$", build, re.MULTILINE)
    allowed = re.findall(r"^!(.+)$", (ROOT / "deploy/Dockerfile.dockerignore").read_text(), re.MULTILINE)
    assert sorted(" ".join(copied).split()) == sorted(allowed)
    assert all((ROOT / name).exists() for name in allowed)


def test_every_container_is_read_only_and_unprivileged() -> None:
    assert set(COMPOSE["services"]) == {"redis", "export", "serve"}
    for service in COMPOSE["services"].values():
        assert service["read_only"]
        assert service["cap_drop"] == ["ALL"]
        assert service["security_opt"] == ["no-new-privileges:true"]
        assert all(port.startswith("127.0.0.1:") for port in service.get("ports", []))
        assert all(target.endswith(":ro") for target in service.get("volumes", []) if target.startswith("."))


def test_their_commands_are_ones_the_command_line_knows() -> None:
    image = re.search(r"^CMD (\[.+\])", DOCKERFILE.replace("\\\n", ""), re.MULTILINE)[1]
    for command in (yaml.safe_load(image), *(COMPOSE["services"][name]["command"] for name in ("export", "serve"))):
        assert _parser().parse_args(command).command in ("serve", "export")
