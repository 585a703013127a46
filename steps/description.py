"""What a step returns: its outputs by reference."""

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Description:
    """A step's outputs by reference; this is all that ZenML stores of them.

    Attributes:
        stage: Stage name as in dvc.lock, `train_i2i@swing-real` for matrix stages.
        outputs: md5 by path, as in dvc.lock.
        rows: Rows of the main table; None if there is none.
    """

    stage: str
    outputs: Mapping[str, str]
    rows: int | None
