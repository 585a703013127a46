"""Outputs appear whole or not at all; hashes are DVC's."""

import hashlib
import json
from pathlib import Path

import pytest

from llm_i2i.files import content_md5, staged, write_json


def test_folder_takes_the_place_of_the_old_one(tmp_path: Path) -> None:
    final = tmp_path / "deep" / "out"
    for text in ("old", "new"):
        with staged(final) as out:
            (out / f"{text}.txt").write_text(text)
    assert [path.name for path in final.iterdir()] == ["new.txt"]
    assert [path.name for path in final.parent.iterdir()] == ["out"]


@pytest.mark.parametrize("name", ["out", "out.json"])
def test_failure_leaves_the_old_output_and_nothing_else(tmp_path: Path, name: str) -> None:
    final = tmp_path / name
    with staged(final) as out:
        (out / "a" if out.is_dir() else out).write_text("old")
    before = content_md5(final)

    def fail() -> None:
        with staged(final) as out:
            (out / "a" if out.is_dir() else out).write_text("half")
            raise ValueError("stop")

    with pytest.raises(ValueError, match="stop"):
        fail()
    assert content_md5(final) == before
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_remains_of_a_killed_run_are_swept_away(tmp_path: Path) -> None:
    (tmp_path / "out.partial").mkdir()
    (tmp_path / "out.partial" / "junk").write_text("junk")
    with staged(tmp_path / "out") as out:
        assert list(out.iterdir()) == []


def test_md5_of_a_folder_is_that_of_its_sorted_list(tmp_path: Path) -> None:
    (tmp_path / "f" / "b").mkdir(parents=True)
    (tmp_path / "f" / "b" / "x").write_text("1")
    (tmp_path / "f" / "a.txt").write_text("2")
    md5 = {text: hashlib.md5(text.encode()).hexdigest() for text in "12"}
    listing = [{"md5": md5["2"], "relpath": "a.txt"}, {"md5": md5["1"], "relpath": "b/x"}]
    expected = hashlib.md5(json.dumps(listing).encode()).hexdigest() + ".dir"
    assert content_md5(tmp_path / "f") == expected
    assert content_md5(tmp_path / "f" / "a.txt") == md5["2"]


def test_json_bytes_depend_on_the_content_only(tmp_path: Path) -> None:
    write_json({"b": 1, "a": "é"}, tmp_path / "x.json")
    write_json({"a": "é", "b": 1}, tmp_path / "y.json")
    assert (tmp_path / "x.json").read_bytes() == (tmp_path / "y.json").read_bytes()
    assert (tmp_path / "x.json").read_text(encoding="utf-8") == '{\n  "a": "é",\n  "b": 1\n}\n'
