import json

import pandas as pd
import pytest

from llm_i2i import cli
from llm_i2i.i2i.export import load_jsonl, load_redis
from llm_i2i.schema import INDEX, INTERACTIONS, ITEMS, read_table, write_table


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A folder with a catalogue of three titles, one user and an index."""
    monkeypatch.chdir(tmp_path)
    items = [("a", "Alien", 2), ("b", "Brazil", 2), ("c", "Cube", 1)]
    catalogue = [(item, title, title, n, "mid", False) for item, title, n in items]
    write_table(
        pd.DataFrame(catalogue, columns=list(ITEMS)), tmp_path / "artifacts/items/items.parquet", ITEMS
    )
    for part, rows in {"train": [("u", "a", 1, 0)], "valid": [("u", "b", 2, 1)]}.items():
        write_table(
            pd.DataFrame(rows, columns=list(INTERACTIONS)),
            tmp_path / f"artifacts/split/{part}.parquet",
            INTERACTIONS,
        )
    index = [("a", "b", 0.5, 1), ("a", "c", 0.25, 2), ("b", "c", 0.5, 1)]
    folder = tmp_path / "artifacts/i2i/swing-real"
    write_table(pd.DataFrame(index, columns=list(INDEX)), folder / "index.parquet", INDEX)
    manifest = {"model": "swing", "arm": "real", "params": {"swing": {"last_m": 1}}}
    (folder / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")
    return tmp_path


INDEX_OPTION = ["--index", "artifacts/i2i/swing-real"]


def test_recommend_for_items_with_titles(project, capsys):
    assert cli.main(["recommend", "--items", "a", *INDEX_OPTION]) == 0
    assert capsys.readouterr().out == "1\t0.5\tb\tBrazil\n2\t0.25\tc\tCube\n"
    assert cli.main(["recommend", "--items", "a", "--top-k", "1", *INDEX_OPTION]) == 0
    assert capsys.readouterr().out == "1\t0.5\tb\tBrazil\n"


def test_recommend_for_a_user_takes_train_and_valid_and_the_indexs_own_query(project, capsys):
    assert cli.main(["recommend", "--user", "u", *INDEX_OPTION]) == 0
    assert capsys.readouterr().out == "1\t0.5\tc\tCube\n"
    assert cli.main(["recommend", "--user", "u", "--last-m", "0", *INDEX_OPTION]) == 0
    assert capsys.readouterr().out == "1\t0.75\tc\tCube\n"


def test_no_neighbour_is_said(project, capsys):
    assert cli.main(["recommend", "--items", "c", *INDEX_OPTION]) == 0
    out, err = capsys.readouterr()
    assert not out
    assert "no item of the query has a neighbour" in err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["recommend", "--items", "a,x,y", *INDEX_OPTION], "--items: not in the catalogue: x, y"),
        (["recommend", "--items", ",", *INDEX_OPTION], "nothing given"),
        (["recommend", "--user", "v", *INDEX_OPTION], "--user: user 'v' has no interactions"),
        (["recommend", "--items", "a", "--index", "nowhere"], "no such file"),
        (["recommend", "--items", "a", "--top-k", "0", *INDEX_OPTION], "lookup top_k: is 0"),
        (["export", *INDEX_OPTION, "--to", "index.csv"], "--to: is 'index.csv'"),
        (["export", *INDEX_OPTION, "--to", "redis://127.0.0.1:1/0"], "Redis failed"),
    ],
)
def test_bad_input_is_one_line(project, capsys, arguments, message):
    assert cli.main(arguments) == 2
    err = capsys.readouterr().err
    assert message in err
    assert err.count("\n") == 1


def test_export_adds_the_git_revision_to_the_manifest(project, capsys):
    assert cli.main(["export", *INDEX_OPTION, "--to", "index.jsonl"]) == 0
    index = read_table(project / "artifacts/i2i/swing-real/index.parquet", INDEX)
    pd.testing.assert_frame_equal(load_jsonl(project / "index.jsonl"), index)
    manifest = json.loads((project / "index.jsonl.manifest.json").read_text(encoding="utf-8"))
    assert {"model", "arm", "params", "rows", "content_sha256", "git_revision"} == set(manifest)


def test_redis_to_redis(project, capsys, redis_url):
    assert cli.main(["export", *INDEX_OPTION, "--to", redis_url]) == 0
    index = read_table(project / "artifacts/i2i/swing-real/index.parquet", INDEX)
    pd.testing.assert_frame_equal(load_redis(redis_url, prefix="llm-i2i")[0], index)
    assert cli.main(["recommend", "--user", "u", "--index", redis_url]) == 0
    assert capsys.readouterr().out == "1\t0.5\tc\tCube\n"
