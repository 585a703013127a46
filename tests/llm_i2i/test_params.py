import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import ValidationError
from ruamel.yaml import YAML

from llm_i2i.errors import ParamsError
from llm_i2i.params import RECIPE, FuseParams, Params, load_params, read_params
from llm_i2i.params.reading import leaves
from llm_i2i.params.rendering import dials, reference, yaml_text
from tests.conftest import ROOT, whole_params
from tests.llm_i2i.data.tables import fuse_params

PARAMS = ROOT / "params.yaml"


@pytest.fixture
def raw() -> dict[str, Any]:
    """A params.yaml that says everything."""
    return whole_params()


def load(raw: object, folder: Path) -> Params:
    path = folder / "params.yaml"
    path.write_text(yaml.safe_dump(raw), encoding="utf-8")
    return load_params(path)


def problems(raw: object, folder: Path) -> str:
    with pytest.raises(ParamsError) as caught:
        load(raw, folder)
    return str(caught.value)


def test_the_shipped_file_is_valid_and_every_key_is_known() -> None:
    params = load_params(PARAMS)
    assert params.model_dump(mode="json", by_alias=True) == read_params(PARAMS)


def test_all_problems_at_once_with_key_rule_and_value(raw: dict[str, Any], tmp_path: Path) -> None:
    raw["fuse"]["treshold"] = raw["fuse"].pop("threshold")
    raw["split"]["min_user_items"] = 2
    raw["train_generator"]["learning_rate"] = "fast"
    raw["train_i2i"]["bpr"]["factors"] = 0
    raw["synthesise"] = raw.pop("synthesize")
    message = problems(raw, tmp_path)
    assert "7 problem(s)" in message
    lines = [line.strip() for line in message.splitlines()[1:]]
    by_key = {line.partition(":")[0].partition(" ")[0]: line for line in lines}
    assert "Field required" in by_key["fuse.threshold"]
    assert f"(got {raw['fuse']['treshold']})" in by_key["fuse.treshold"]
    assert "greater than or equal to 3 (got 2)" in by_key["split.min_user_items"]
    assert "valid number" in by_key["train_generator.learning_rate"]
    assert "(got 'fast')" in by_key["train_generator.learning_rate"]
    assert "(got 0)" in by_key["train_i2i.bpr.factors"]
    assert {"synthesize", "synthesise"} <= set(by_key)


@pytest.mark.parametrize(
    ("section", "key", "value"),
    [
        ("fuse", "threshold", 1.1),
        ("fuse", "threshold", float("nan")),
        ("fuse", "arms", []),
        ("fuse", "arms", ["llm"]),
        ("fuse", "index", "valid"),
        ("tag", "long_tail_share", -0.1),
        ("train_generator", "tail_weight", float("inf")),
        ("train_generator", "lora_dropout", 1.0),
        ("train_discriminator", "held_out_share", 0.0),
        ("train_i2i", "models", ["als"]),
        ("evaluate", "ks", [0]),
        ("evaluate", "decay", 0),
        ("base_model", "source", "internet"),
        ("runtime", "device", "gpu"),
    ],
)
def test_values_out_of_range(raw: dict[str, Any], tmp_path: Path, section: str, key: str, value: object) -> None:
    raw[section][key] = value
    message = problems(raw, tmp_path)
    assert f"  {section}.{key}" in message
    # pydantic may report an element and its list: nothing else may be at fault
    assert all(line.startswith(f"  {section}.{key}") for line in message.splitlines()[1:])


def test_rules_between_keys(raw: dict[str, Any], tmp_path: Path) -> None:
    raw["synthesize"] |= {"num_beams": 4, "items_per_user": 5}
    raw["base_model"] |= {"source": "hub", "revision": ""}
    message = problems(raw, tmp_path)
    assert "synthesize (params.yaml): Value error, num_beams must be at least items_per_user" in message
    assert "base_model (params.yaml): Value error, source hub needs `id` and `revision`" in message
    raw["base_model"] |= {"source": "path", "path": ""}
    assert "source path needs `path`" in problems(raw, tmp_path)


@pytest.mark.parametrize("text", ["- a list\n", "", "just words\n"])
def test_no_mapping(tmp_path: Path, text: str) -> None:
    (tmp_path / "params.yaml").write_text(text)
    with pytest.raises(ParamsError, match="expected a mapping of sections"):
        load_params(tmp_path / "params.yaml")


@pytest.mark.parametrize("content", [b"a: [1\n", b"a: \xff\n", None])
def test_unreadable(tmp_path: Path, content: bytes | None) -> None:
    if content is not None:
        (tmp_path / "params.yaml").write_bytes(content)
    with pytest.raises(ParamsError, match="cannot be read"):
        load_params(tmp_path / "params.yaml")


def test_values_cannot_change() -> None:
    params = load_params(PARAMS)
    with pytest.raises(ValidationError, match="frozen"):
        params.seed = 1  # type: ignore[misc]
    with pytest.raises(ValidationError, match="frozen"):
        params.fuse.threshold = 0.1  # type: ignore[misc]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"fuse.arms": ["real", "item_knn"], "controls.names": ["random"]}, "item_knn in controls.names"),
        ({"fuse.arms": ["real", "item_knn_filtered"]}, "item_knn in score.sources"),
        ({"score.sources": ["generator", "random"], "controls.names": ["item_knn"]}, "must be in controls.names too"),
        ({"score.sources": ["item_knn"]}, "generator is what every arm needs"),
    ],
)
def test_an_arm_needs_its_control(
    changes: dict[str, object], message: str, raw: dict[str, Any], tmp_path: Path
) -> None:
    raw["controls"]["names"] = ["random", "item_knn"]
    load({**raw, "score": {**raw["score"], "sources": ["generator", "item_knn"]},
          "fuse": {**raw["fuse"], "arms": ["random", "item_knn_filtered"]}}, tmp_path)  # fmt: skip
    for key, value in changes.items():
        section, _, name = key.partition(".")
        raw[section][name] = value
    assert message in problems(raw, tmp_path)


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A folder with params.yaml and profiles/."""
    shutil.copytree(ROOT / "profiles", tmp_path / "profiles")
    shutil.copy2(PARAMS, tmp_path)
    return tmp_path


def change(path: Path, **sections: Any) -> None:
    content = yaml.safe_load(path.read_text(encoding="utf-8"))
    for section, values in sections.items():
        content[section] = {**content.get(section, {}), **values} if isinstance(values, dict) else values
    path.write_text(yaml.safe_dump(content), encoding="utf-8")


def test_params_lies_over_the_profile_which_lies_over_the_models(project: Path) -> None:
    assert load_params(project / "params.yaml") == load_params(PARAMS)
    change(project / "profiles/laptop.yaml", report={"samples": 3}, tag={"tail_max_count": 9})
    change(project / "params.yaml", report={"samples": 4}, fuse={"custom": {"item_quota": 7}})
    params = load_params(project / "params.yaml")
    assert params.report.samples == 4, "an option of the profile, set in params.yaml"
    assert params.tag.tail_max_count == 5, "params.yaml states it, so it decides"
    assert (params.fuse.custom.item_quota, params.fuse.custom.pairs_per_user) == (7, 1.0)
    change(project / "params.yaml", profile="compact", split={"held_out_share": 0.1})
    params = load_params(project / "params.yaml")
    assert params.train_generator.early_stopping.patience == 3
    assert params.base_model.source == "embedded", "still what params.yaml says"


def test_each_problem_names_the_file_that_states_the_key(project: Path) -> None:
    change(project / "params.yaml", report={"sampels": 1}, split={"max_users": -1})
    change(project / "profiles/laptop.yaml", train_generator={"lora_r": 0}, tag={"head_share": 2})
    change(project / "profiles/models.yaml", train_i2i={"bm25": {"k1": -1, "b": 0.2}, "swing": {"smoothing": 1}})
    with pytest.raises(ParamsError) as caught:
        load_params(project / "params.yaml")
    message = str(caught.value)
    for told in (
        "report.sampels (params.yaml): Extra",
        "split.max_users (params.yaml): Input should be greater",
        "train_generator.lora_r (profiles/laptop.yaml)",
        "tag.head_share (profiles/laptop.yaml)",
        "train_i2i.bm25.k1 (profiles/models.yaml)",
        "train_i2i.swing.user_shift (profiles/models.yaml): Field required",
    ):
        assert told in message
    assert "7 problem(s)" in message


def test_options_of_models_have_one_place(project: Path) -> None:
    change(project / "params.yaml", train_i2i={"bm25": {"k1": 1.5, "b": 0.2}})
    with pytest.raises(ParamsError, match=r"states train_i2i\.bm25; set options of I2I models in profiles/models"):
        load_params(project / "params.yaml")


def test_a_missing_profile_says_what_to_do(project: Path) -> None:
    change(project / "params.yaml", profile="laptap")
    with pytest.raises(ParamsError, match=r"profiles/laptap\.yaml: cannot be read .*set `profile`"):
        load_params(project / "params.yaml")


def test_another_revision_is_read_through_its_own_files() -> None:
    files = {
        "params.yaml": "profile: p\nseed: 1\ntrain_i2i: {top_k: 3}",
        "profiles/p.yaml": "seed: 2\na: {b: 1, c: [1]}",
        "profiles/models.yaml": "train_i2i: {swing: {x: 1}}",
    }
    found = read_params(read=files.__getitem__)
    assert found == {
        "profile": "p", "seed": 1, "a": {"b": 1, "c": [1]}, "train_i2i": {"top_k": 3, "swing": {"x": 1}},
    }  # fmt: skip
    assert read_params(read={"params.yaml": "seed: 1"}.__getitem__) == {"seed": 1}, "from before there were profiles"


def fuse(**changes: object) -> FuseParams:
    return FuseParams.model_validate(fuse_params(pairs_per_user=0.1).model_dump() | changes)


def test_selection_names_the_switches_in_force() -> None:
    paper = fuse(selection="paper", threshold=0.7, max_synthetic_per_user=4).rule
    assert (paper.confidence, paper.mode, paper.threshold, paper.max_synthetic_per_user) == (
        "rank",
        "threshold",
        0.7,
        4,
    )
    credible = fuse(selection="most_credible", threshold=0.7, max_synthetic_per_user=4).rule
    assert credible == paper.model_copy(update={"confidence": "p_yes"})
    assert not any((paper.connected_only, paper.item_quota, paper.tail_quota))
    assert fuse(selection="recipe", threshold=0.7).rule == RECIPE
    custom = fuse(selection="custom", threshold=0.7)
    assert custom.rule == custom.custom
    assert custom.rule.pairs_per_user == 0.1


def test_params_yaml_shows_what_a_user_decides(raw: dict[str, Any]) -> None:
    shown = dials(raw)
    assert shown["fuse"]["custom"] == {}
    assert "samples" not in shown["report"]
    assert "swing" not in shown["train_i2i"]


def test_yaml_text_reads_back_as_the_same_values_by_both_versions_of_yaml(raw: dict[str, Any]) -> None:
    raw["train_generator"] |= {"learning_rate": 2e-05, "weight_decay": 1e16}
    raw["model_card"] |= {"data": "ours: #1, 'quoted' \"twice\"", "data_licence": "yes"}
    raw["unknown"] = {"key": [1.5, "a, b"]}
    text = yaml_text(raw, "# head\n")
    assert text.startswith("# head\nprofile: ")
    assert yaml.safe_load(text) == YAML(typ="safe").load(text) == raw
    assert max(map(len, text.splitlines())) <= 120


def test_the_reference_names_every_option_once(raw: dict[str, Any]) -> None:
    text = reference(raw)
    row = "| **threshold** | float ≥ 0, ≤ 1 | {} | paper, most_credible: drop synthetic pairs below this p_yes |"
    assert row.format(raw["fuse"]["threshold"]) in text
    assert "| custom.item_quota | int ≥ 0 | 0 |" in text
    assert "| hidden |" not in text
    assert text.count("\n| ") - 2 * text.count("\n| --- ") == sum(1 for _ in leaves(raw))
