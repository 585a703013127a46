"""How ZenML stores a step's description: a few hundred bytes of references, never the data."""

import json
from pathlib import Path
from typing import Any, ClassVar

from zenml.enums import ArtifactType
from zenml.materializers.base_materializer import BaseMaterializer

from steps.description import Description

_FILE = "references.json"


class DescriptionMaterializer(BaseMaterializer):
    """Writes paths and md5 hashes; lineage between runs joins on the hashes."""

    ASSOCIATED_TYPES: ClassVar[tuple[type[Any], ...]] = (Description,)
    ASSOCIATED_ARTIFACT_TYPE: ClassVar[ArtifactType] = ArtifactType.DATA

    def load(self, data_type: type[Any]) -> Description:  # noqa: ARG002 - the name is ZenML's
        """Read the references back."""
        with self.artifact_store.open(str(Path(self.uri) / _FILE), "r") as file:
            return Description(**json.loads(file.read()))

    def save(self, data: Description) -> None:
        """Write the references."""
        content = {"stage": data.stage, "outputs": dict(data.outputs), "rows": data.rows}
        with self.artifact_store.open(str(Path(self.uri) / _FILE), "w") as file:
            file.write(json.dumps(content))

    def extract_metadata(self, data: Description) -> dict[str, Any]:
        """Show the references beside the artifact."""
        return {"outputs": dict(data.outputs), **({} if data.rows is None else {"rows": data.rows})}

    def compute_content_hash(self, data: Description) -> str | None:
        """The output's md5, or those of all outputs."""
        return "+".join(data.outputs.values())
