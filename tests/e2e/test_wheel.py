"""A wheel, installed with extra `serve` alone, serves: what a shop does that knows nothing of the pipeline."""

import json
import os
import shutil
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import httpx2
import pytest

from tests.conftest import ROOT
from tests.llm_i2i.serving.conftest import NAMES, a_shop
from tests.llm_i2i.serving.test_server import free_port

pytestmark = pytest.mark.slow

LOCK = ROOT / "requirements-serve.lock"
CLEAN = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "VIRTUAL_ENV"))}


def run(*command: object, **options) -> str:
    done = subprocess.run(
        [str(part) for part in command], env=CLEAN, capture_output=True, text=True, check=False, **options
    )
    assert done.returncode == 0, done.stdout[-3_000:] + done.stderr[-3_000:]
    return done.stdout


def tracked(*under: str) -> list[str]:
    listed = run("git", "ls-files", "-z", "--cached", "--others", "--exclude-standard", *under, cwd=ROOT)
    return [name for name in listed.split("\0") if name and (ROOT / name).is_file()]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    """Built from a copy, so that nothing an earlier build left gets into it."""
    folder = tmp_path_factory.mktemp("wheel")
    probe = [sys.executable, "-m", "pip", "download", "--no-deps", "--no-cache-dir", "--dest", str(folder / "probe")]
    reached = subprocess.run([*probe, "setuptools==80.9.0"], env=CLEAN, capture_output=True, text=True, check=False)
    if reached.returncode:
        pytest.skip(f"the package registry cannot be reached: {reached.stderr.strip()[-300:]}")
    for name in tracked("src", "pyproject.toml", "README.md", "LICENSE"):
        (folder / "copy" / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, folder / "copy" / name)
    run(sys.executable, "-m", "pip", "wheel", "--no-deps", "--wheel-dir", folder, folder / "copy")
    (made,) = folder.glob("*.whl")
    return made


def test_the_wheel_holds_every_file_of_the_package(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as file:
        names = {name for name in file.namelist() if ".dist-info/" not in name}
    assert names == {name.removeprefix("src/") for name in tracked("src")}


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory) -> Path:
    """The programs of a fresh environment."""
    folder = tmp_path_factory.mktemp("installed")
    run(sys.executable, "-m", "venv", folder)
    python, locked = folder / "bin/python", ("--require-hashes", "--no-deps", "-r", LOCK)
    # `make setup` leaves uv with these packages at hand; pip unpacks them all anew.
    quick = [str(word) for word in (Path(sys.executable).parent / "uv", "pip", "install", "--python", python, *locked)]
    if not Path(quick[0]).exists() or subprocess.run(quick, env=CLEAN, capture_output=True, check=False).returncode:
        run(python, "-m", "pip", "install", "--no-compile", *locked)
    run(python, "-m", "pip", "install", "--no-deps", wheel)
    run(python, "-m", "pip", "check")
    return folder / "bin"


def test_no_package_of_the_pipeline_comes_along_and_the_size_is_as_stated(installed: Path) -> None:
    names = {each["name"].lower() for each in json.loads(run(installed / "pip", "list", "--format", "json"))}
    assert {"llm-i2i", "fastapi", "uvicorn", "redis", "numba"} <= names
    heavy = {"torch", "transformers", "zenml", "dvc", "great-expectations", "optuna", "matplotlib", "scikit-learn"}
    assert not heavy & names
    (packages,) = (installed.parent / "lib").glob("python*/site-packages")
    parts = [path for path in packages.iterdir() if not path.name.startswith(("pip", "setuptools", "pkg_resources"))]
    # A module counts twice: pip compiles it, which here would take half a minute, to a file of about its size.
    size = sum(
        file.stat().st_size * (2 if file.suffix == ".py" else 1)
        for part in parts
        for file in (part, *part.rglob("*"))
        if file.is_file()
    )
    stated = json.loads((ROOT / "benchmarks/results/cost.json").read_text(encoding="utf-8"))["install_gb"]["serve"]
    assert stated == pytest.approx(size / 1e9, rel=0.1)


def test_it_serves_and_the_answers_are_those_of_the_command_line(installed: Path, tmp_path: Path) -> None:
    shop, port = a_shop(tmp_path), free_port()
    program, where = installed / "llm-i2i", ["--index", shop.folder, "--catalogue", shop.catalogue]
    command = [program, "serve", *where, "--artifacts", tmp_path, "--store", shop.store, "--port", port]
    log = tmp_path / "log"
    with log.open("w") as file:
        server = subprocess.Popen([str(part) for part in command], cwd=tmp_path, env=CLEAN, stderr=file)
    try:
        address = f"http://127.0.0.1:{port}"
        until = time.monotonic() + 120
        while True:
            try:
                assert httpx2.get(f"{address}/readyz").json()["ready"]
                break
            except httpx2.TransportError:
                assert server.poll() is None, log.read_text(encoding="utf-8")
                assert time.monotonic() < until
                time.sleep(0.2)
        history = [NAMES[5], NAMES[9]]
        answer = httpx2.post(f"{address}/v1/recommend", json={"history": history, "k": 5}).json()
        found = run(program, "recommend", *where, "--items", ",".join(history), "--top-k", 5, cwd=tmp_path)
        assert [item["item_id"] for item in answer["items"]] == [line.split("\t")[2] for line in found.splitlines()]
        assert "text/html" in httpx2.get(f"{address}/").headers["content-type"]
    finally:
        server.terminate()
        server.wait(timeout=30)
