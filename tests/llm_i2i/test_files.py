"""Outputs appear whole or not at all; hashes are DVC's."""

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from llm_i2i import files
from llm_i2i.errors import WriteError
from llm_i2i.files import content_md5, staged, write_json, write_text


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


def test_remains_of_a_killed_run_are_swept_away_and_those_of_a_living_one_stay(tmp_path: Path) -> None:
    dead = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, check=True)
    for pid in (int(dead.stdout), os.getppid()):
        (tmp_path / f"out.{pid}.partial").mkdir()
        (tmp_path / f"out.{pid}.partial" / "junk").write_text("junk")
    with staged(tmp_path / "out") as out:
        assert list(out.iterdir()) == []
    assert {path.name for path in tmp_path.iterdir()} == {"out", f"out.{os.getppid()}.partial"}


def test_two_processes_that_write_one_file_leave_the_whole_of_one(tmp_path: Path) -> None:
    """Each has its own temporary name, so neither renames what the other is still writing."""
    code = (
        "import sys; from pathlib import Path; from llm_i2i.files import write_text\n"
        "for n in range(60): write_text(sys.argv[1] * 300_000, Path(sys.argv[2]))"
    )
    final = tmp_path / "out.txt"
    write_text("a", final)
    pair = [subprocess.Popen([sys.executable, "-c", code, letter, str(final)]) for letter in "ab"]
    while any(process.poll() is None for process in pair):
        assert len(set(final.read_text())) == 1
    assert [process.returncode for process in pair] == [0, 0]
    assert [path.name for path in tmp_path.iterdir()] == ["out.txt"]


@pytest.mark.parametrize("old", ["file", "folder"])
@pytest.mark.parametrize("swaps", [True, False])
def test_a_folder_replaces_what_is_there_also_where_names_cannot_be_exchanged(tmp_path, monkeypatch, old, swaps):
    if not swaps:
        monkeypatch.setattr(files, "_swap", lambda *_: False)
    final = tmp_path / "out"
    if old == "folder":
        final.mkdir()
        (final / "old").write_text("old")
    else:
        final.write_text("old")
    with staged(final) as out:
        (out / "new").write_text("new")
    assert [path.name for path in final.iterdir()] == ["new"]
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_a_path_that_cannot_be_written_is_one_error_that_names_it(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(WriteError, match=r"file/deep/out.json: cannot be written \(File exists\).*unchanged"):
        write_json({}, tmp_path / "file" / "deep" / "out.json")


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


RANKS = [({}, True), ({"RANK": "1"}, True), ({"RANK": "1", "WORLD_SIZE": "1"}, True), ({"RANK": ""}, True)]
SEVERAL = [({"RANK": "1", "WORLD_SIZE": "2"}, False), ({"RANK": "0", "WORLD_SIZE": "2"}, True)]


@pytest.mark.parametrize(("environment", "writes"), [*RANKS, *SEVERAL])
def test_a_rank_that_another_program_has_set_changes_nothing(tmp_path, monkeypatch, environment, writes):
    for name in ("RANK", "WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    write_json({}, tmp_path / "a.json")
    assert (tmp_path / "a.json").exists() == writes


@pytest.mark.parametrize("locale", ["C", "POSIX", "tr_TR.ISO-8859-9"])
def test_neither_locale_nor_time_zone_changes_a_byte(tmp_path, locale):
    code = """
import sys
from pathlib import Path
from llm_i2i.files import write_csv, write_json
write_json({"\\u0130": "\\u6f22"}, Path(sys.argv[1]))
write_csv(Path(sys.argv[2]), ("\\u00df",), [("\\u0131",)])
"""
    out = [tmp_path / "a.json", tmp_path / "a.csv"]
    changes = {"LC_ALL": locale, "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "TZ": "Asia/Kathmandu"}
    subprocess.run([sys.executable, "-c", code, *map(str, out)], env={**os.environ, **changes}, check=True)
    assert out[0].read_bytes() == '{\n  "\u0130": "\u6f22"\n}\n'.encode()
    assert out[1].read_bytes() == "\u00df\n\u0131\n".encode()


@pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="the superuser may write anywhere")
def test_a_folder_without_write_permission_is_one_error(tmp_path):
    tmp_path.chmod(0o555)
    try:
        with pytest.raises(WriteError, match="Permission denied"):
            write_json({}, tmp_path / "a.json")
    finally:
        tmp_path.chmod(0o755)
