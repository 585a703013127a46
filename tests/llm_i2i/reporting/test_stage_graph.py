import sys
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

from llm_i2i.errors import ArtifactError
from llm_i2i.reporting.stage_graph import main, read_stages, render_stage_graph

DVC = """
stages:
  validate: {cmd: a, deps: [data, src/validate.py], outs: [artifacts/validation]}
  split: {cmd: a, deps: [data/interactions.csv, artifacts/validation], outs: [artifacts/split: {cache: true}]}
  base_model: {cmd: a, params: [base_model], outs: [artifacts/base]}
  train: {cmd: a, deps: [artifacts/split/train.parquet, artifacts/base], outs: [artifacts/adapter]}
  fuse: {cmd: a, deps: [artifacts/split, artifacts/adapter], outs: [artifacts/fused]}
  train_i2i:
    matrix: {model: [swing, bpr], arm: "${fuse.arms}"}
    cmd: a
    deps: ["artifacts/fused/${item.arm}.parquet"]
    outs: ["artifacts/i2i/${item.model}-${item.arm}"]
  evaluate:
    foreach: [swing, bpr]
    do:
      cmd: a
      deps: ["artifacts/i2i/${item}-real", artifacts/split]
      metrics: ["reports/metrics/${item}-real.json": {cache: false}]
  report: {cmd: a, deps: [reports/metrics, artifacts/validation], outs: [reports/summary.json]}
"""


def _write(folder: Path, text: str) -> Path:
    path = folder / "dvc.yaml"
    path.write_text(text)
    return path


def test_arrows_follow_files_and_leave_out_indirect_ones(tmp_path: Path) -> None:
    stages = {stage.name: stage for stage in read_stages(_write(tmp_path, DVC))}
    assert {name: stage.needs for name, stage in stages.items()} == {
        "data/": (),
        "validate": ("data/",),
        "split": ("validate",),
        "base_model": (),
        "train": ("base_model", "split"),
        "fuse": ("train",),
        "train_i2i": ("fuse",),
        "evaluate": ("train_i2i",),
        "report": ("evaluate",),
    }
    assert stages["train_i2i"].runs == "model × arm"
    assert stages["data/"].raw
    assert stages["evaluate"].label == "reports/metrics/*-real.json"


def test_the_picture_is_standalone_and_the_same_each_time(tmp_path: Path) -> None:
    path = _write(tmp_path, DVC)
    text = render_stage_graph(path)
    assert text == render_stage_graph(path)
    root = ET.fromstring(text)
    assert root.tag == "{http://www.w3.org/2000/svg}svg"
    words = "".join(root.itertext())
    assert all(name in words for name in ("validate", "train_i2i", "model × arm", "data/"))
    assert "report needs evaluate" in words
    assert "prefers-color-scheme: dark" in text


def test_boxes_do_not_overlap(tmp_path: Path) -> None:
    from llm_i2i.reporting.stage_graph import BOX_WIDTH, _places

    wide = "stages:\n" + "".join(f"  s{i}: {{cmd: a, deps: [data], outs: [o{i}]}}\n" for i in range(6))
    for text in (DVC, wide):
        stages = read_stages(_write(tmp_path, text))
        places, _ = _places(stages)
        boxes = [places[stage.name] for stage in stages]
        for i, (x, level) in enumerate(boxes):
            for other_x, other_level in boxes[i + 1 :]:
                assert level != other_level or abs(x - other_x) >= BOX_WIDTH


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "cannot be read"),
        ("a: [", "cannot be read"),
        ("stages: {}", "no stages"),
        ("stages: {a: {deps: [x], outs: [y]}, b: {deps: [y], outs: [x]}}", "cycle"),
    ],
)
def test_a_file_that_is_no_pipeline(text: str, words: str, tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match=words):
        render_stage_graph(_write(tmp_path, text))


def test_command_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "stages.svg"
    monkeypatch.setattr(sys, "argv", ["stage_graph", str(_write(tmp_path, DVC)), str(out)])
    main()
    assert out.read_text().startswith("<svg")
