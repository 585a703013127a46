"""A stage of a finished run meets faults of the disk, and runs out of memory. All stages: `make faults`."""

import pytest

from tests.e2e.project import Project
from tests.faults.test_faults import found, shim  # noqa: F401 - a fixture

pytestmark = pytest.mark.slow


def test_a_stage_leaves_its_old_outputs_or_its_new_ones(shim, tmp_path, finished: Project):  # noqa: F811
    name = "stage:fuse@llm_i2i"
    result = found(shim, tmp_path, name, "--limit", "3", "--memory", FAULTS_PROJECT=str(finished.root))[name]
    assert result["problems"] == []
    assert any(outcome.startswith("no memory: refused") for outcome in result["outcomes"])
