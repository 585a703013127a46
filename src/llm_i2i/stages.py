"""The stages of the graph and the keys of their matrices, once: dvc.yaml, command line, report and tests agree with it.

Stage = section of params.yaml = file in steps/ = ZenML pipeline in pipelines/stages.py.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

# Name -> keys of its matrix in dvc.yaml, in the order in which the stages run.
STAGES: Final[Mapping[str, tuple[str, ...]]] = MappingProxyType(
    {
        "validate": (),
        "split": (),
        "tag": (),
        "encode_text": (),
        "identify": (),
        "base_model": (),
        "train_generator": (),
        "train_discriminator": (),
        "synthesize": (),
        "controls": ("name",),
        "score": ("source",),
        "judge": (),
        "fuse": ("arm",),
        "train_i2i": ("model", "arm"),
        "evaluate": ("model", "arm"),
        "evaluate_generator": ("arm",),
        "report": (),
    }
)
# Several processes can share their users: `--part`, `runtime.processes`.
SHARED: Final = ("synthesize", "score", "evaluate_generator")
# Under update.retrain_after they keep results for the next run, which computes what is new.
KEPT: Final = ("synthesize", "score", "train_i2i")
# What `python -m pipelines update` leaves as it is until it trains again: the LLMs, and how they name the items.
TRAININGS: Final = ("identify", "base_model", "train_generator", "train_discriminator")


def instance_name(stage: str, matrix: Mapping[str, str]) -> str:
    """A stage's name as DVC writes it: `fuse@real`, `train_i2i@swing-real`."""
    return stage + ("@" + "-".join(matrix.values()) if matrix else "")
