import io
import json
import sys

import pandas as pd
import pytest

from llm_i2i import cli, commands
from llm_i2i.i2i.export import load_jsonl, load_redis
from llm_i2i.schema import INDEX, INTERACTIONS, ITEMS, read_table, write_table


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A folder with a catalogue of three titles, one user and an index."""
    monkeypatch.chdir(tmp_path)
    items = [("a", "Alien", 2), ("b", "Brazil", 2), ("c", "Cube", 1)]
    catalogue = [(item, title, title, n, "mid", False) for item, title, n in items]
    write_table(pd.DataFrame(catalogue, columns=list(ITEMS)), tmp_path / "artifacts/items/items.parquet", ITEMS)
    for part, rows in {"train": [("u", "a", 1, 0)], "valid": [("u", "b", 2, 1)]}.items():
        write_table(
            pd.DataFrame(rows, columns=list(INTERACTIONS)), tmp_path / f"artifacts/split/{part}.parquet", INTERACTIONS
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
    expected = {"model", "arm", "params", "rows", "content_sha256", "git_revision", "file_sha256", "seal"}
    assert expected == set(manifest)


def test_redis_to_redis(project, capsys, redis_url):
    assert cli.main(["export", *INDEX_OPTION, "--to", redis_url]) == 0
    index = read_table(project / "artifacts/i2i/swing-real/index.parquet", INDEX)
    pd.testing.assert_frame_equal(load_redis(redis_url, prefix="llm-i2i")[0], index)
    assert cli.main(["recommend", "--user", "u", "--index", redis_url]) == 0
    assert capsys.readouterr().out == "1\t0.5\tc\tCube\n"


@pytest.fixture
def odd(project):
    """The same index over ids with commas, blanks, quotes and tabs, and a title of several lines."""
    ids = {"a": "p,q", "b": " lead", "c": 'say "x"\t1'}
    for path, columns in (("artifacts/items/items.parquet", ITEMS), ("artifacts/i2i/swing-real/index.parquet", INDEX)):
        table = read_table(project / path, columns).replace(ids)
        if "title" in table:
            table.loc[2, "title"] = "Cube\n\t\u2028\u200b2 \U0001f43b"
        write_table(table, project / path, columns)
    return project


@pytest.mark.parametrize("items", ["p,q", '"p,q"', '"p,q", lead', "p,q, lead"])
def test_ids_with_commas_and_blanks(odd, capsys, items):
    status = cli.main(["recommend", "--items", items, "--last-m", "1", *INDEX_OPTION])
    if items == "p,q, lead":  # two readings fail: the message says how to quote
        assert status == 2
        assert "into double quotes" in capsys.readouterr().err
    else:
        assert status == 0
        assert capsys.readouterr().out


def test_a_blank_in_front_belongs_to_the_id_that_has_one(odd, capsys):
    for items in (" lead", '" lead"'):
        assert cli.main(["recommend", "--items", items, *INDEX_OPTION]) == 0
        assert capsys.readouterr().out.startswith('1\t0.5\tsay "x"\\t1\t')


def test_each_item_is_one_line_of_four_columns(odd, capsys):
    assert cli.main(["recommend", "--items", "p,q", *INDEX_OPTION]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split("\t")[2:] for line in lines] == [[" lead", "Brazil"], ['say "x"\\t1', "Cube 2 \U0001f43b"]]


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "cp1252"])
def test_a_terminal_that_cannot_show_a_title_gets_its_code_points(odd, monkeypatch, encoding):
    out = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
    monkeypatch.setattr(sys, "stdout", out)
    assert cli.main(["recommend", "--items", "p,q", *INDEX_OPTION]) == 0
    assert "Cube 2 \\U0001f43b\n" in out.buffer.getvalue().decode(encoding)


@pytest.mark.parametrize(
    "to", ["/proc/x/out.jsonl", "/dev/null/out.jsonl", "artifacts/i2i/swing-real/manifest.json/o.jsonl"]
)
def test_an_output_that_cannot_be_written_is_one_line(project, capsys, to):
    assert cli.main(["export", *INDEX_OPTION, "--to", to]) == 2
    err = capsys.readouterr().err
    assert f"error: {to}: cannot be written (" in err
    assert err.count("\n") == 1


def test_a_closed_pipe_and_an_interrupt_end_in_no_traceback(project, capsys, monkeypatch):
    for error, status in ((BrokenPipeError, 0), (KeyboardInterrupt, 130)):
        with monkeypatch.context() as patch:
            patch.setattr(sys, "stdout", sys.stdout)

            def refuse(_: object, error: type[BaseException] = error) -> None:
                raise error

            patch.setattr(commands, "recommend", refuse)
            assert cli.main(["recommend", "--items", "a", *INDEX_OPTION]) == status
        assert "Traceback" not in capsys.readouterr().err
