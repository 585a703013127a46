from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import ValidationError

from llm_i2i.errors import ParamsError
from llm_i2i.params import Params, load_params

PARAMS = Path(__file__).parents[2] / "params.yaml"


@pytest.fixture
def raw() -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load(PARAMS.read_text(encoding="utf-8"))
    return loaded


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
    dumped = params.model_dump(mode="json", by_alias=True)
    assert dumped == yaml.safe_load(PARAMS.read_text(encoding="utf-8"))


def test_all_problems_at_once_with_key_rule_and_value(raw: dict[str, Any], tmp_path: Path) -> None:
    raw["fuse"]["treshold"] = raw["fuse"].pop("threshold")
    raw["split"]["min_user_items"] = 2
    raw["train_generator"]["learning_rate"] = "fast"
    raw["train_i2i"]["bpr"]["factors"] = 0
    raw["synthesise"] = raw.pop("synthesize")
    message = problems(raw, tmp_path)
    assert "7 problem(s)" in message
    lines = [line.strip() for line in message.splitlines()[1:]]
    by_key = {line.partition(":")[0]: line for line in lines}
    assert "Field required" in by_key["fuse.threshold"]
    assert "(got 0.5)" in by_key["fuse.treshold"]
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
def test_values_out_of_range(
    raw: dict[str, Any], tmp_path: Path, section: str, key: str, value: object
) -> None:
    raw[section][key] = value
    message = problems(raw, tmp_path)
    assert f"  {section}.{key}" in message
    # pydantic may report an element and its list: nothing else may be at fault
    assert all(line.startswith(f"  {section}.{key}") for line in message.splitlines()[1:])


def test_rules_between_keys(raw: dict[str, Any], tmp_path: Path) -> None:
    raw["synthesize"] |= {"num_beams": 4, "items_per_user": 5}
    raw["base_model"] |= {"source": "hub", "revision": ""}
    message = problems(raw, tmp_path)
    assert "synthesize: Value error, num_beams must be at least items_per_user" in message
    assert "base_model: Value error, source hub needs `id` and `revision`" in message
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
        (
            {"score.sources": ["generator", "random"], "controls.names": ["item_knn"]},
            "must be in controls.names too",
        ),
        ({"score.sources": ["item_knn"]}, "generator is what every arm needs"),
    ],
)
def test_an_arm_needs_its_control(
    changes: dict[str, object], message: str, raw: dict[str, Any], tmp_path: Path
) -> None:
    load({**raw, "score": {**raw["score"], "sources": ["generator", "item_knn"]},
          "fuse": {**raw["fuse"], "arms": ["random", "item_knn_filtered"]}}, tmp_path)  # fmt: skip
    for key, value in changes.items():
        section, _, name = key.partition(".")
        raw[section][name] = value
    assert message in problems(raw, tmp_path)
