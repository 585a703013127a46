"""ZenML's model control plane on a real, empty store, in a process of its own."""

import json
import os
import subprocess
import sys

import pytest

from tests.conftest import ROOT

SCRIPT = """
import json
from pipelines.release.zenml_models import publish
gate = {"model": "swing-real", "commit": "c" * 40, "verdict": "better", "reasons": ["overall: +0.1"], "index_md5": "m"}
for version in ("v0.0.1", "v0.0.2", "v0.0.2"):
    publish("i2i-index", version, gate)
from zenml.client import Client
versions = Client().list_model_versions(model="i2i-index").items
print(json.dumps({v.name: [v.stage, v.run_metadata] for v in versions}))
"""


@pytest.mark.slow
def test_versions_and_stages(tmp_path):
    environment = {**os.environ, "LLM_I2I_ZENML": "on", "PYTHONPATH": f"{ROOT}:{ROOT / 'src'}"}
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert set(found) == {"v0.0.1", "v0.0.2"}
    assert found["v0.0.1"][0] == "archived"  # it held the stage before
    assert found["v0.0.2"][0] == "production"
    assert found["v0.0.2"][1]["commit"] == "c" * 40
