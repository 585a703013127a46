import multiprocessing
import socket
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from llm_i2i.data.wheels import extract_member, obtain_wheel
from llm_i2i.errors import DataError
from llm_i2i.files import file_sha256

NAME = "llm_i2i_stand_in"


def build_wheel(folder: Path, version: str = "1.0", content: str = "inside") -> Path:
    """A real, minimal wheel that pip accepts."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{NAME}-{version}-py3-none-any.whl"
    info = f"{NAME}-{version}.dist-info"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(f"{NAME}/data/file.txt", content)
        archive.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {NAME}\nVersion: {version}\n")
        archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(f"{info}/RECORD", "")
    return path


@pytest.fixture
def registry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that pip searches instead of a package registry."""
    wheel = build_wheel(tmp_path / "registry")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(wheel.parent))
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    return wheel


def test_download_is_checked_kept_and_not_repeated(registry: Path, tmp_path: Path) -> None:
    downloads = tmp_path / "new" / "downloads"
    pin = {"requirement": "llm-i2i-stand-in==1.0", "sha256": file_sha256(registry), "downloads": downloads}
    wheel = obtain_wheel(**pin)
    assert wheel == downloads / registry.name
    assert wheel.read_bytes() == registry.read_bytes()
    registry.unlink()  # no way to download it again
    assert obtain_wheel(**pin) == wheel
    assert [path.name for path in downloads.iterdir() if not path.name.endswith(".lock")] == [registry.name]


def test_a_wheel_put_there_by_hand_serves(tmp_path: Path) -> None:
    wheel = build_wheel(tmp_path)
    found = obtain_wheel(requirement=f"{NAME}==1.0", sha256=file_sha256(wheel), downloads=tmp_path)
    assert found == wheel


def test_a_damaged_wheel_is_replaced(registry: Path, tmp_path: Path) -> None:
    damaged = tmp_path / "downloads" / registry.name
    damaged.parent.mkdir()
    damaged.write_bytes(b"half a wh")
    wheel = obtain_wheel(requirement=f"{NAME}==1.0", sha256=file_sha256(registry), downloads=damaged.parent)
    assert wheel.read_bytes() == registry.read_bytes()


def test_another_hash_is_refused_and_nothing_stays(registry: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=f"has SHA-256 {file_sha256(registry)}; expected 0000"):
        obtain_wheel(requirement=f"{NAME}==1.0", sha256="0" * 64, downloads=tmp_path / "d")
    assert not list((tmp_path / "d").glob("*.whl"))


def test_an_absent_version_names_the_fix(registry: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"could not download it .*2\.0.*check the network") as caught:
        obtain_wheel(requirement=f"{NAME}==2.0", sha256="a" * 64, downloads=tmp_path / "d")
    assert "a" * 64 in str(caught.value)


def test_no_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as free:  # bound but not listening: connections are refused at once
        free.bind(("127.0.0.1", 0))
        for name in ("PIP_FIND_LINKS", "PIP_EXTRA_INDEX_URL"):
            monkeypatch.delenv(name, raising=False)
        monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
        monkeypatch.setenv("PIP_INDEX_URL", f"http://127.0.0.1:{free.getsockname()[1]}/simple")
        monkeypatch.setenv("PIP_RETRIES", "0")
        with pytest.raises(DataError, match="could not download"):
            obtain_wheel(requirement=f"{NAME}==1.0", sha256="0" * 64, downloads=tmp_path)


@pytest.mark.parametrize("requirement", ["recbole", "recbole>=1", "recbole==1.2.1; extra", "-r file"])
def test_only_exact_pins(requirement: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="not an exact pin"):
        obtain_wheel(requirement=requirement, sha256="0" * 64, downloads=tmp_path)


def _obtain(sha256: str, downloads: Path) -> str:
    return str(obtain_wheel(requirement=f"{NAME}==1.0", sha256=sha256, downloads=downloads))


def test_processes_at_once_get_the_same_file(registry: Path, tmp_path: Path) -> None:
    arguments = [(file_sha256(registry), tmp_path / "d")] * 3
    with multiprocessing.get_context("spawn").Pool(3) as pool:
        assert len(set(pool.starmap(_obtain, arguments))) == 1


def test_extract_member(tmp_path: Path) -> None:
    wheel = build_wheel(tmp_path, content="é")
    out = extract_member(wheel, f"{NAME}/data/file.txt", tmp_path / "deep" / "file.txt")
    assert out.read_text(encoding="utf-8") == "é"
    assert list(out.parent.iterdir()) == [out]


def test_extract_names_what_is_wrong(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no member 'nothing'"):
        extract_member(build_wheel(tmp_path), "nothing", tmp_path / "out")
    broken = tmp_path / "broken.whl"
    broken.write_bytes(b"not a zip")
    with pytest.raises(DataError, match="unreadable"):
        extract_member(broken, "nothing", tmp_path / "out")
    assert not (tmp_path / "out").exists()
    assert not list(tmp_path.glob("*.partial"))


def test_pip_is_there() -> None:
    """The set-up command depends on it."""
    subprocess.run([sys.executable, "-m", "pip", "--version"], check=True, capture_output=True)
