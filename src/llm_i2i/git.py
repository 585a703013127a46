"""The one door to git: its command line."""

import subprocess
from pathlib import Path


def git(*arguments: str, root: Path = Path()) -> str | None:
    """What a git command printed.

    Args:
        arguments: The command's words.
        root: Folder to run it in.

    Returns:
        Standard output; None if the command failed or there is no git.
    """
    printed = git_bytes(*arguments, root=root)
    return None if printed is None else printed.decode("utf-8", "surrogateescape")


def git_bytes(*arguments: str, root: Path = Path()) -> bytes | None:
    """As `git`, for content that is no text."""
    command = ["git", "-C", str(root), *arguments]
    try:
        done = subprocess.run(command, capture_output=True, check=False)  # noqa: S603 - no shell
    except OSError:
        return None
    return done.stdout if done.returncode == 0 else None


def git_revision() -> str:
    """Commit id, with `-dirty` if tracked files differ from it; empty outside a git repository."""
    return (git("describe", "--always", "--dirty", "--abbrev=40", "--exclude=*") or "").strip()
