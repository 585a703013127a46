"""dvc.yaml, params.yaml, pipelines/ and steps/ tell one story."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from llm_i2i import params as schema
from llm_i2i.stages import STAGES
from steps import paths
from tests.conftest import ROOT, whole_params
from tests.contracts.imports import core_files

NO_STAGES = {
    "profile",
    "seed",
    "runtime",
    "spark",
    "gate",
    "monitor",
    "update",
    "model_card",
}  # gate, monitor: commands, they compare revisions
STEP_TOOLS = {"__init__", "description", "dvc", "llm", "materializer", "parts", "paths", "stage"}

# `runtime.processes` and `runtime.engine` are nobody's: they change no result.
RUNTIME = {f"runtime.{key}" for key in schema.RuntimeParams.model_fields if key not in {"processes", "engine"}}
PROFILE, MODELS = "profiles/${profile}.yaml", "profiles/models.yaml"
# The keys of params.yaml that each stage depends on, besides nothing else. A section, or part of one, that params.yaml
# need not state in full is listed in the profile too; a key of its own stands in params.yaml and decides.
PARAMS = {
    "validate": {"validate", "tag.tail_max_count"},
    "split": {"split", "seed"},
    "tag": {"tag", "seed"},
    "encode_text": {"encode_text", *RUNTIME},
    "identify": {"identify", "seed"},
    "base_model": {"base_model", "seed", "train_discriminator.template", "train_generator.template"},
    "train_generator": {"train_generator", *RUNTIME, "seed"},
    "train_discriminator": {"train_discriminator", *RUNTIME, "seed"},
    "synthesize": {"synthesize", *RUNTIME, "seed"},
    "controls": {"base_model", "controls.compact", "synthesize", *RUNTIME, "seed"},
    "score": {f"score.{key}" for key in schema.ScoreParams.model_fields if key != "sources"} | RUNTIME | {"seed"},
    "judge": {"judge"},
    "fuse": {f"fuse.{key}" for key in schema.FuseParams.model_fields if key != "arms"},
    "train_i2i": {"train_i2i.top_k", "seed"},
    "evaluate": {"evaluate", "fuse.index", "seed", "split", "tag"},
    "evaluate_generator": {
        "evaluate",
        *(f"evaluate_generator.{key}" for key in ("batch_users", "max_users", "num_beams")),
        "fuse.index",
        *RUNTIME,
        "seed",
        "split",
        "tag",
    },
    "report": {
        "evaluate_generator.arms",
        "fuse",
        "gate.arm",
        "gate.model",
        "model_card",
        "report",
        "seed",
        "split",
        "train_i2i.models",
    },
}
PARTS = {
    "controls": {"base_model.compact", "controls.compact"},
    "fuse": {"fuse.custom"},
    "synthesize": {"update"},
    "score": {"update"},
}
OF_A_MODEL = {"train_i2i", "evaluate"}


def listed(stage: dict[str, Any], file: str = "params.yaml") -> list[str]:
    """The keys of a file that a stage depends on."""
    if file == "params.yaml":
        return [entry for entry in stage["params"] if isinstance(entry, str)]
    return [key for entry in stage["params"] if isinstance(entry, dict) for key in entry.get(file, [])]


def modules(folder: str) -> set[str]:
    return {path.stem for path in (ROOT / folder).glob("*.py")}


def test_stage_is_section_is_step(written, params) -> None:
    assert tuple(written) == tuple(STAGES)
    assert set(params) - NO_STAGES == set(STAGES)
    assert modules("steps") - STEP_TOOLS == set(STAGES)


@pytest.mark.parametrize("stage", STAGES)
def test_command_is_the_stages_pipeline_on_its_matrix(stage, written) -> None:
    matrix = written[stage].get("matrix", {})
    assert tuple(matrix) == STAGES[stage]
    options = "".join(f" --{key} ${{item.{key}}}" for key in matrix)
    assert written[stage]["cmd"] == f"python -m pipelines {stage}{options}"


@pytest.mark.parametrize("stage", STAGES)
def test_params_are_exactly_those_it_depends_on(stage, written) -> None:
    files = {file for entry in written[stage]["params"] if isinstance(entry, dict) for file in entry}
    assert files <= {PROFILE, MODELS}
    sections = {key for key in PARAMS[stage] if "." not in key} - {"seed"}
    if stage == "controls":
        sections -= {"base_model"}  # only its part `compact`
    expected = {
        "params.yaml": PARAMS[stage],
        PROFILE: sections | PARTS.get(stage, set()),
        MODELS: {"train_i2i.${item.model}"} if stage in OF_A_MODEL else set(),
    }
    for file, keys in expected.items():
        assert len(listed(written[stage], file)) == len(keys)
        assert set(listed(written[stage], file)) == keys


@pytest.mark.parametrize("stage", STAGES)
def test_a_key_that_is_listed_by_itself_stands_in_params(stage, written, params) -> None:
    """Otherwise DVC would stop, and a value added to params.yaml would change a result that stays."""
    for key in listed(written[stage]):
        place = params
        for part in key.split("."):
            place = place[part]


def test_every_option_is_somebodys(written) -> None:
    """A stage depends on each option of the schema: by its section or by itself."""
    found = {key for stage in written.values() for file in ("params.yaml", MODELS) for key in listed(stage, file)}
    found |= {f"train_i2i.{model}" for model in schema.Model.__args__}
    whole = whole_params()
    keys = {f"{section}.{key}" for section in set(whole) - NO_STAGES for key in whole[section]}
    nobodys = {key for key in keys if key not in found and key.split(".")[0] not in found}
    assert nobodys == {"controls.names", "score.sources"}  # lists of matrices


def test_every_model_has_its_options() -> None:
    models = yaml.safe_load((ROOT / MODELS).read_text(encoding="utf-8"))
    assert set(models["train_i2i"]) == set(schema.Model.__args__)


@pytest.mark.parametrize("stage", STAGES)
def test_deps_name_the_code_it_runs_through(stage, written) -> None:
    deps = written[stage]["deps"]
    code = {dep for dep in deps if dep.startswith(("src/", "steps/")) and dep.endswith(".py")}
    assert code == core_files(stage) | {f"steps/{stage}.py"}
    assert len(deps) == len(set(deps))


@pytest.mark.parametrize("stage", STAGES)
def test_deps_exist(stage, written, params) -> None:
    for dep in written[stage]["deps"]:
        if dep.startswith(("src/", "steps/")):
            path = re.sub(r"\$\{(\w+)\.template\}", lambda found: params[found[1]]["template"], dep)
            assert (ROOT / path).exists(), path


def test_outputs_lie_where_the_steps_write(written) -> None:
    named = {value.as_posix() for value in vars(paths).values() if isinstance(value, Path)}
    for stage in written.values():
        for out in stage.get("outs", []):
            assert out in named or Path(out).parent.as_posix() in named
        for metric in stage.get("metrics", []):
            (path,) = metric
            assert metric[path] == {"cache": False}
            assert path in named or Path(path).parent.as_posix() in named


def test_heavy_stages_have_no_uncached_metrics(written) -> None:
    assert {name for name, stage in written.items() if "metrics" in stage} == {
        "evaluate",
        "evaluate_generator",
        "report",
    }


def downstream(edges, first: str) -> set[str]:
    found = {name for pair in edges for name in pair if name.split("@")[0] == first}
    while new := {after for before, after in edges if before in found} - found:
        found |= new
    return {name.split("@")[0] for name in found}


@pytest.mark.parametrize(
    ("key", "rerun"),
    [
        ("fuse.threshold", {"fuse", "train_i2i", "evaluate", "report"}),
        (
            "train_generator.tail_weight",
            {
                "train_generator",
                "synthesize",
                "controls",
                "score",
                "judge",
                "fuse",
                "train_i2i",
                "evaluate",
                "evaluate_generator",
                "report",
            },
        ),
        (
            "identify.identifier",
            {
                "identify",
                "train_generator",
                "train_discriminator",
                "synthesize",
                "controls",
                "score",
                "judge",
                "fuse",
                "train_i2i",
                "evaluate",
                "evaluate_generator",
                "report",
            },
        ),
        ("evaluate.last_m", {"evaluate", "evaluate_generator", "report"}),
        ("train_i2i.top_k", {"train_i2i", "evaluate", "report"}),
    ],
)
def test_a_changed_key_reruns_its_stage_and_later_ones_only(key, rerun, written, edges) -> None:
    section = key.split(".")[0]
    direct = {name for name, stage in written.items() if {key, section} & set(listed(stage))}
    assert set().union(*(downstream(edges, name) for name in direct)) == rerun


def test_one_more_control_makes_no_scoring_stale(edges) -> None:
    """Minutes of an LLM: what the discriminator is asked about is one source's file."""
    before_scoring = {before for before, after in edges if after.split("@")[0] == "score"}
    assert "synthesize" in before_scoring
    assert not {name for name in before_scoring if name.startswith("controls@")}
