"""A DVC stage as one step of the whole graph's pipeline."""

import os
import subprocess
import sys
from pathlib import Path

import yaml

from llm_i2i.errors import LlmI2iError
from steps.stage import Description, plain_step


@plain_step
def dvc_stage(stage: str) -> Description:
    """Let DVC bring one stage up to date, then publish its outputs as dvc.lock has them.

    Args:
        stage: Name in dvc.lock, `fuse@real` for matrix stages.
    """
    dvc("repro", "--single-item", stage)
    locked = yaml.safe_load(Path("dvc.lock").read_text(encoding="utf-8"))["stages"][stage]
    return Description(stage, {out["path"]: out["md5"] for out in locked["outs"]}, rows=None)


def dvc(*arguments: str) -> str:
    """Run dvc with this very Python and return what it printed.

    A stage that runs under this pipeline must not start a ZenML run of its own.

    Raises:
        LlmI2iError: dvc failed; its output is in the message.
    """
    command = [sys.executable, "-m", "dvc", *arguments]
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"
    environment = {**os.environ, "LLM_I2I_ZENML": "off", "PATH": path}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)  # noqa: S603
    if done.returncode:
        raise LlmI2iError(f"dvc {' '.join(arguments)}", f"failed:\n{done.stdout}{done.stderr}")
    return done.stdout
