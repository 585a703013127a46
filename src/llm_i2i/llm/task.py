"""What an adapter must be used with: its template and history length, kept beside its weights."""

import hashlib
import json
from pathlib import Path
from typing import Any

from llm_i2i.errors import ArtifactError
from llm_i2i.llm.prompts import load_template

TASK_FILE = "task.json"


def write_task(out: Path, task: dict[str, Any]) -> None:
    """Write what an adapter must be used with: template and history length."""
    (out / TASK_FILE).write_text(json.dumps(task, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def read_task(adapter: Path) -> dict[str, Any]:
    """What an adapter must be used with.

    Raises:
        ArtifactError: The file is missing or broken, or the template has changed since training.
    """
    try:
        task: dict[str, Any] = json.loads((adapter / TASK_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ArtifactError(
            str(adapter / TASK_FILE), f"unreadable ({error})", fix="run `dvc repro`"
        ) from error
    _, sha256 = load_template(task["template"], task["template"].split("_")[0])
    if sha256 != task["template_sha256"]:
        raise ArtifactError(
            str(adapter), f"template {task['template']} changed since training", fix="run `dvc repro`"
        )
    return task


def adapter_sha256(adapter: Path) -> str:
    """SHA-256 of what was trained: an adapter's weights file, or a compact model's."""
    found = [adapter / name for name in ("adapter_model.safetensors", "model.safetensors")]
    weights = next((path for path in found if path.is_file()), None)
    if weights is None:
        raise ArtifactError(str(adapter), "holds no weights", fix="run `dvc repro`")
    return hashlib.sha256(weights.read_bytes()).hexdigest()
