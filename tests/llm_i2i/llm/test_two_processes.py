"""Training by two processes on the CPU: what `accelerate launch --num_processes 2` starts on two GPUs."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from llm_i2i.params import Params
from tests.conftest import ROOT

TRAIN = """
import json, os, sys
from pathlib import Path
import numpy as np, pandas as pd
from llm_i2i.llm.generator import train_generator
from llm_i2i.llm.identifiers import Identifiers
from llm_i2i.llm.role import LlmSetup
from llm_i2i.params import Params, RuntimeParams
folder, out = Path(sys.argv[1]), Path(sys.argv[1]) / f"adapter-{sys.argv[2]}-{os.environ.get('RANK', '0')}"
params = Params.model_validate(json.loads((folder / "params.json").read_text()))
items = pd.read_parquet(folder / "items.parquet")
runtime = RuntimeParams(device="cpu", precision="fp32", threads=1)
facts = train_generator(
    train=pd.read_parquet(folder / "train.parquet"),
    held_out=pd.DataFrame(columns=["user_id", "item_id"]),
    setup=LlmSetup(items, Identifiers(tuple(items["text"])), np.zeros((len(items), 2)), Path(sys.argv[3]), runtime, 1),
    params=params.train_generator, out=out, checkpoints=out / "states")
assert facts["processes"] == int(os.environ.get("WORLD_SIZE", "1"))
"""


@pytest.mark.slow
def test_two_processes_train_the_adapter_of_one(
    tmp_path: Path, params: Params, train, items, base_model: Path
) -> None:
    """Micro-batches that do not divide by two neither deadlock nor change the gradient."""
    settings = {"max_windows": 0, "batch_tokens": 512, "learning_rate": 1e-3}
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    train.to_parquet(tmp_path / "train.parquet")
    items.to_parquet(tmp_path / "items.parquet")
    logs = {}
    for name, ranks, accumulation in (("one", 1, 6), ("two", 2, 3)):
        changed = params.train_generator.model_copy(update={**settings, "accumulation": accumulation})
        whole = params.model_copy(update={"train_generator": changed})
        (tmp_path / "params.json").write_text(whole.model_dump_json(by_alias=True))
        runs = []
        for rank in range(ranks):
            environment = dict(os.environ)
            if ranks > 1:
                environment |= {
                    "RANK": str(rank),
                    "LOCAL_RANK": str(rank),
                    "WORLD_SIZE": str(ranks),
                    "LOCAL_WORLD_SIZE": str(ranks),
                    "MASTER_ADDR": "127.0.0.1",
                    "MASTER_PORT": str(port),
                    "ACCELERATE_USE_CPU": "true",
                }
            command = [sys.executable, "-c", TRAIN, str(tmp_path), name, str(base_model)]
            runs.append(subprocess.Popen(command, cwd=ROOT, env=environment))
        assert [run.wait(timeout=240) for run in runs] == [0] * ranks
        logs[name] = np.genfromtxt(
            tmp_path / f"adapter-{name}-0" / "training.csv", delimiter=",", skip_header=1
        )
    assert len(logs["one"]) > 1, "more than one optimizer step"
    np.testing.assert_array_equal(
        logs["one"][:, 3:], logs["two"][:, 3:]
    )  # tokens and targets of all processes
    np.testing.assert_allclose(logs["one"][:, 1], logs["two"][:, 1], atol=2e-3)
    one, two, other = (
        load_file(tmp_path / f"adapter-{name}" / "adapter_model.safetensors")
        for name in ("one-0", "two-0", "two-1")
    )
    for name, weights in one.items():
        np.testing.assert_array_equal(two[name], other[name])
        np.testing.assert_allclose(two[name], weights, atol=2e-3)
