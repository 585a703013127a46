"""Folders that may not be written to or read: one message, and nothing else changes.

Root passes every permission, so the commands run without the two capabilities that let it.
"""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT

COMMANDS = """
import json, pathlib, sys
from pipelines.__main__ import main

def outcome(*words):
    try:
        return main(list(words))
    except SystemExit as end:
        return end.code

data, out = pathlib.Path("data"), pathlib.Path("artifacts")
found = {"data read only": outcome("split")}
out.chmod(0o500)
(out / "split").chmod(0o500)
found["artifacts read only"] = outcome("split")
out.chmod(0o700)
pathlib.Path("params.yaml").chmod(0o400)
pathlib.Path().chmod(0o500)
found["folder read only"] = outcome("profile", "laptop")
(data / "interactions.csv").chmod(0)
found["table unreadable"] = outcome("split")
print(json.dumps(found))
"""


@pytest.mark.skipif(os.name == "nt", reason="permissions of another kind")
def test_what_may_not_be_written_or_read_is_one_message(tmp_path: Path):
    without = []
    if os.geteuid() == 0:
        if shutil.which("setpriv") is None:
            pytest.skip("root without setpriv passes every permission")
        without = ["setpriv", "--bounding-set", "-dac_override,-dac_read_search"]
    shutil.copytree(ROOT / "profiles", tmp_path / "profiles")
    for name in ("params.yaml", "dvc.yaml"):
        shutil.copy(ROOT / name, tmp_path)
    (tmp_path / "data").mkdir()
    rows = [f"u{user},i{(user + n) % 9},{1_500_000_000 + n}" for user in range(30) for n in range(5)]
    (tmp_path / "data" / "interactions.csv").write_text("user_id,item_id,timestamp\n" + "\n".join(rows) + "\n")
    (tmp_path / "data" / "items.csv").write_text("item_id,title\n" + "".join(f"i{n},Item {n}\n" for n in range(9)))
    (tmp_path / "data").chmod(0o500)
    environment = {**os.environ, "LLM_I2I_ZENML": "off", "PYTHONPATH": f"{ROOT / 'src'}{os.pathsep}{ROOT}"}
    done = subprocess.run(
        [*without, sys.executable, "-c", COMMANDS],
        cwd=tmp_path, env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    tmp_path.chmod(0o700)
    expected = {"data read only": 0, "artifacts read only": 2, "folder read only": 2, "table unreadable": 2}
    assert json.loads(done.stdout.splitlines()[-1]) == expected
    errors = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert [error.split(":")[1].strip() for error in errors] == ["artifacts/split", "params.yaml", "data"]
    assert all("cannot be written (Permission denied)" in error for error in errors[:2])
    assert "Traceback" not in done.stderr
    assert (tmp_path / "artifacts" / "split" / "train.parquet").stat().st_size > 0
    assert not list(tmp_path.rglob("*.partial*"))
