"""SECURITY.md names files and tests that exist, and `make sbom` writes what the standard's schema allows."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT

TEXT = (ROOT / "SECURITY.md").read_text(encoding="utf-8")


def test_every_named_file_and_test_exists() -> None:
    rows = [line for line in TEXT.splitlines() if line.startswith("| ")][2:]
    assert len(rows) >= 9
    for row in rows:
        where, test = re.findall(r"`([\w./]+(?:::\w+)?)`", row)[-2:]
        assert (ROOT / where).is_file(), where
        path, _, name = test.partition("::")
        assert re.search(rf"^def {name}\(", (ROOT / path).read_text(encoding="utf-8"), re.MULTILINE), test


def test_the_bill_of_materials_is_valid_and_names_what_is_installed(tmp_path: Path) -> None:
    pytest.importorskip("cyclonedx_py")
    from cyclonedx.schema import SchemaVersion
    from cyclonedx.validation.json import JsonStrictValidator

    out = tmp_path / "sbom.json"
    options = [
        "--no-validate",
        "--mc-type",
        "library",
        "--output-reproducible",
        "--output-format",
        "JSON",
        "--output-file",
        str(out),
    ]
    command = [sys.executable, "-m", "cyclonedx_py", "environment", "--pyproject", "pyproject.toml", *options]
    done = subprocess.run([*command, sys.executable], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    made = json.loads(out.read_text(encoding="utf-8"))
    assert {"numpy", "fastapi"} <= {each["name"] for each in made["components"]}
    # All of it takes the validator a minute, which `make sbom` spends.
    part = json.dumps({**made, "components": made["components"][:2], "dependencies": []})
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(part) is None
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(part.replace('"library"', '"thing"'))
