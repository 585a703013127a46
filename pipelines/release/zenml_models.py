"""ZenML's model control plane: the versions that GTO registers, with the gate's facts."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pipelines import zenml_store

KEPT = ("model", "commit", "protocol_hash", "index_md5", "verdict", "reasons")


def publish(name: str, version: str, gate: Mapping[str, Any]) -> None:
    """Make ZenML's model version of the same name hold stage production; a second call changes nothing.

    Args:
        name: Model, as in dvc.yaml.
        version: As GTO names it.
        gate: Content of reports/gate.json, its facts become metadata.
    """
    zenml_store.prepare(Path())
    from zenml import log_metadata  # noqa: PLC0415 - a second and a half, only where it is used
    from zenml.client import Client  # noqa: PLC0415

    client = Client()
    if not client.list_models(name=name).items:
        client.create_model(name=name, license="Apache-2.0")
    if not client.list_model_versions(model=name, name=version).items:
        client.create_model_version(model_name_or_id=name, name=version)
        log_metadata({key: gate[key] for key in KEPT if gate.get(key)}, model_name=name, model_version=version)
    client.update_model_version(model_name_or_id=name, version_name_or_id=version, stage="production", force=True)
