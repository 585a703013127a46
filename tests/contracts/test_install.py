"""What an install brings is what its part of the package imports: nothing else is there."""

import os
import subprocess
import sys
import tomllib
from functools import cache
from importlib.metadata import PackageNotFoundError, packages_distributions, requires

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.conftest import ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
HEAVY = {"torch", "transformers", "zenml", "dvc", "great-expectations", "optuna", "matplotlib", "scikit-learn"}

WITHOUT = """
import sys

class Absent:
    @staticmethod
    def find_spec(name, path=None, target=None):
        if name.partition(".")[0] in {absent!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

sys.meta_path.insert(0, Absent)
"""


def brought(*extras: str) -> set[str]:
    """Distributions that an install with some extras brings, this project's own aside."""
    wanted = list(PROJECT["dependencies"]) + [
        text for extra in extras for text in PROJECT["optional-dependencies"][extra]
    ]
    found: set[str] = set()
    while wanted:
        requirement = Requirement(wanted.pop())
        name = canonicalize_name(requirement.name)
        if name in found or (requirement.marker and not requirement.marker.evaluate({"extra": ""})):
            continue
        found.add(name)
        try:
            wanted += requires(name) or []
        except PackageNotFoundError:  # of another platform
            continue
    return found


MODULES = cache(packages_distributions)  # a second or more


def run(code: str, *extras: str) -> list[str]:
    """Run code where only these packages can be imported; what it printed."""
    there = brought(*extras) | {"llm-i2i"}
    absent = {
        module
        for module, distributions in MODULES().items()
        if not there & {canonicalize_name(name) for name in distributions}
    }
    assert {"torch", "matplotlib", "zenml"} <= absent
    command = [sys.executable, "-c", WITHOUT.format(absent=absent) + code]
    environment = os.environ | {"LLM_I2I_ZENML": "on"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_the_light_install_brings_nothing_heavy() -> None:
    assert not HEAVY & brought("serve")
    assert brought("pipeline") >= HEAVY


def test_the_light_install_runs_its_part_and_a_missing_extra_is_one_clear_error() -> None:
    told = run("""
import llm_i2i.evaluation.gate, llm_i2i.evaluation.parity, llm_i2i.i2i.lookup, llm_i2i.i2i.train
import numpy, scipy.sparse
from llm_i2i.cli import main
from llm_i2i.errors import LlmI2iError
from llm_i2i.i2i import youtube_dnn
from llm_i2i.i2i.export import load_redis
from llm_i2i.params import load_params
from pipelines.__main__ import main as pipelines

taken = scipy.sparse.csr_matrix(numpy.ones((4, 4), numpy.float32))
sys.stderr = sys.stdout
options = load_params().train_i2i.youtube_dnn.model_dump(exclude={"last_m", "decay", "top_k"})
for call in (lambda: load_redis("redis://a/0", prefix="p"), lambda: youtube_dnn(taken, top_k=2, seed=0, **options)):
    try:
        call()
    except LlmI2iError as error:
        print(error)
main(["serve", "--index", "nowhere"])
pipelines(["validate"])
try:
    main(["--help"])
except SystemExit as stopped:
    print(stopped.code)
""")
    told = [line.partition(" See docs/")[0] for line in told]
    assert [line.replace("is not installed; expected the packages of extra", "...") for line in told[:4]] == [
        "redis://a/0: package redis ... `serve`; run `pip install 'llm-i2i[serve]'`.",
        "youtube_dnn: package torch ... `pipeline`; run `pip install 'llm-i2i[pipeline]'`.",
        "error: llm-i2i serve: package uvicorn ... `serve`; run `pip install 'llm-i2i[serve]'`.",
        "error: python -m pipelines validate: package zenml ... `pipeline`; run `pip install 'llm-i2i[pipeline]'`.",
    ]
    assert "usage: llm-i2i" in told[4]
    assert told[-1] == "0"


def test_the_service_needs_extra_serve_alone() -> None:
    assert run("import llm_i2i.serving.app, llm_i2i.serving.server, redis; print('all there')", "serve")
