"""What every section is made of: bounded types, and options that carry their own explanation."""

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

Share = Annotated[float, Field(ge=0.0, le=1.0)]
OpenShare = Annotated[float, Field(gt=0.0, lt=1.0)]
HalfOpenShare = Annotated[float, Field(ge=0.0, lt=1.0)]
PositiveInt = Annotated[int, Field(ge=1)]
NonNegativeInt = Annotated[int, Field(ge=0)]
PositiveFloat = Annotated[float, Field(gt=0.0, allow_inf_nan=False)]
NonNegativeFloat = Annotated[float, Field(ge=0.0, allow_inf_nan=False)]
Decay = Annotated[float, Field(gt=0.0, le=1.0)]
DIAL = "dial"  # in a field's extra: the option stands in params.yaml


class Section(BaseModel):
    """A section of options: unknown keys are errors, values cannot change."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=False)


def source_is_complete(section: Any) -> Any:
    """Rule of a section that obtains a model: what its `source` needs is there."""
    if section.source == "hub" and not (section.id and section.revision):
        raise ValueError("source hub needs `id` and `revision`")
    if section.source == "path" and not section.path:
        raise ValueError("source path needs `path`")
    return section


def dial(explanation: str) -> Any:
    """An option that a user decides: it stands in params.yaml and in every profile."""
    return Field(description=explanation, json_schema_extra={DIAL: True})


def knob(explanation: str) -> Any:
    """An option that is seldom changed: it stands in every profile, and in params.yaml where a user adds it.

    Those of the I2I models stand in profiles/models.yaml, the same for every profile.
    """
    return Field(description=explanation)
