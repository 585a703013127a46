"""Which commit of the project this is."""

import subprocess


def git_revision() -> str:
    """Commit id, with `-dirty` if tracked files differ from it; empty outside a git repository."""
    command = ["git", "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()  # noqa: S603
    except OSError:
        return ""
