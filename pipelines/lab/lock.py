"""`make lock`: pin what pyproject.toml asks for and all that needs, with hashes; uv finds it, for Linux and macOS.

Each package is locked with the hashes of all its files in the index: one lock serves every Python and machine. PyTorch
comes in builds, each with a lock: the index's own, which on Linux needs the CUDA packages, and the CPU build where pip
is set up to find it. In one lock pip would take the first whenever it reaches the index.
"""

import json
import re
import subprocess
import sys
import tempfile
import tomllib
from collections import Counter
from pathlib import Path

from llm_i2i.errors import LlmI2iError
from llm_i2i.files import write_text

UV = "uv==0.13.9"
LOCK, SERVE, SITE, SPARK = (Path(f"requirements{name}.lock") for name in ("", "-serve", "-docs", "-spark"))
CPU, CUDA, INSTALLER = (Path(f"requirements-{name}.lock") for name in ("torch-cpu", "torch-cuda", "uv"))
EXTRAS, SERVING = ("pipeline", "serve", "sign", "dev"), ("serve", "sign")
OF_TORCH = re.compile(r"(torch==|nvidia|cuda|triton)")
Locked = dict[str, set[str]]  # hashes by requirement, such as "torch==2.13.0" or "name==1.0 ; marker"


def write() -> None:
    """Write the locks. What is locked stays, unless pyproject.toml or another package wants another version.

    Raises:
        LlmI2iError: There is no solution, or the index cannot be reached.
    """
    old = [path for path in (LOCK, CUDA) if path.is_file()]
    before = {name: hashes for path in old for name, hashes in read(path).items()}
    with tempfile.TemporaryDirectory() as folder:
        tools = Path(folder)
        _run(sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", folder, UV)
        found = _compiled(tools, EXTRAS, kept=before, more=UV)
        serve, site, spark = (_compiled(tools, extras, kept=found) for extras in (SERVING, ("docs",), ("spark",)))
    _write(INSTALLER, {UV: found.pop(UV)})
    _write(LOCK, {name: hashes for name, hashes in found.items() if not OF_TORCH.match(name)})
    _write(CUDA, {name: hashes for name, hashes in found.items() if OF_TORCH.match(name)})
    _write(SERVE, serve)
    _write(SITE, site)
    _write(SPARK, spark)
    build, digest = _own_build(next(name for name in found if name.startswith("torch==")))
    if build.endswith("+cpu"):  # else the lock of the CPU build stays as it is
        _write(CPU, {f"torch=={build}": {digest}})


def read(path: Path) -> Locked:
    """A lock's content."""
    locked: Locked = {}
    for line in path.read_text(encoding="utf-8").replace("\\\n", "").splitlines():
        if line and not line.startswith("#"):
            name, *hashes = line.split(" --hash=")
            locked[name.strip()] = {each.strip() for each in hashes}
    return locked


def _write(path: Path, locked: Locked) -> None:
    lines = [" \\\n    ".join([name, *(f"--hash={each}" for each in sorted(locked[name]))]) for name in sorted(locked)]
    write_text("\n".join(["# Made by `make lock`; installed with --require-hashes --no-deps.", *lines, ""]), path)


def _compiled(tools: Path, extras: tuple[str, ...], kept: Locked, more: str = "") -> Locked:
    """What extras of this project need, what builds it, and one package more."""
    out = tools / f"{extras[0]}.lock"
    _write(out, kept)  # uv keeps what is there
    wanted = [part for extra in extras for part in ("--extra", extra)]
    project = tomllib.loads(Path("pyproject.toml").read_text(encoding="utf-8"))
    _run(
        str(tools / "bin" / "uv"), "pip", "compile", "--quiet", "--universal", "--python-version", "3.11",
        "--generate-hashes", "--no-annotate", "--no-header", *wanted, "--output-file", str(out), "pyproject.toml", "-",
        told="\n".join([*project["build-system"]["requires"], more]),
    )  # fmt: skip
    found = read(out)
    # Nearly every line says on which machines the lock holds at all.
    ((common, _),) = Counter(name.partition(" ; ")[2] for name in found).most_common(1)
    return {name.removesuffix(f" ; {common}"): hashes for name, hashes in found.items()}


def _own_build(torch: str) -> tuple[str, str]:
    """Version and hash of the build of PyTorch that pip takes here, from wherever it is set up to look."""
    command = ("install", "--quiet", "--dry-run", "--ignore-installed", "--no-deps", "--report", "-", torch)
    (found,) = json.loads(_run(sys.executable, "-m", "pip", *command))["install"]
    return found["metadata"]["version"], f"sha256:{found['download_info']['archive_info']['hashes']['sha256']}"


def _run(*command: str, told: str = "") -> str:
    done = subprocess.run(  # noqa: S603 - no shell
        command, input=told, capture_output=True, encoding="utf-8", errors="replace", check=False
    )
    if done.returncode:
        raise LlmI2iError("make lock", f"failed: {done.stderr}")
    return done.stdout


if __name__ == "__main__":
    write()
