"""Environment of all tests: offline, quiet, one thread a worker, and steps as plain functions."""

import os
from pathlib import Path
from typing import Any

import pytest

# Before anything imports numpy, torch, numba, zenml or great_expectations.
os.environ.update(
    {
        "OMP_NUM_THREADS": "1",
        "OPENBLAS_NUM_THREADS": "1",
        "NUMBA_NUM_THREADS": os.environ.get("NUMBA_NUM_THREADS", "2"),
        "TOKENIZERS_PARALLELISM": "false",
        "GX_ANALYTICS_ENABLED": "false",
        "DVC_NO_ANALYTICS": "true",
        "ZENML_ANALYTICS_OPT_IN": "false",
        "LLM_I2I_ZENML": "off",
        "MPLBACKEND": "Agg",
    }
)

ROOT = Path(__file__).parents[1]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files with slow tests first, the slowest at the top: a worker that got one of them last would end alone."""
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: (item.path not in slow, "e2e" not in item.path.parts))


@pytest.fixture(scope="session")
def root() -> Path:
    """The project folder."""
    return ROOT


def whole_params() -> dict[str, Any]:
    """Every value that runs by default, in one mapping: a params.yaml that needs no profile."""
    from llm_i2i.params import read_params

    return {**read_params(ROOT / "params.yaml"), "profile": ""}
