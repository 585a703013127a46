"""Training by two processes on the CPU: what `accelerate launch --num_processes 2` starts on two GPUs."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from llm_i2i.llm.generator import train_generator
from llm_i2i.params import Params
from tests.conftest import ROOT

TRAIN = """
import os, sys
from pathlib import Path
import numpy as np, pandas as pd
from llm_i2i.llm.generator import train_generator
from llm_i2i.llm.identifiers import Identifiers
from llm_i2i.llm.role import LlmSetup
from llm_i2i.params import RuntimeParams, TrainGeneratorParams
folder, out = Path(sys.argv[1]), Path(sys.argv[1]) / f"adapter-{os.environ['RANK']}"
params = TrainGeneratorParams.model_validate_json((folder / "params.json").read_text())
items = pd.read_parquet(folder / "items.parquet")
runtime = RuntimeParams(device="cpu", precision="fp32", threads=1, processes=1, engine="local")
facts = train_generator(
    train=pd.read_parquet(folder / "train.parquet"),
    held_out=pd.DataFrame(columns=["user_id", "item_id"]),
    setup=LlmSetup(items, Identifiers(tuple(items["text"])), np.zeros((len(items), 2)), Path(sys.argv[2]), runtime, 1),
    params=params, out=out, checkpoints=out / "states")
assert facts["processes"] == 2
"""


@pytest.mark.slow
def test_two_processes_train_the_adapter_of_one(tmp_path: Path, params: Params, train, nothing, setup) -> None:
    """Micro-batches that do not divide by two neither deadlock nor change the gradient."""
    settings = {"max_windows": 0, "batch_tokens": 512, "learning_rate": 1e-3}
    one, two = (
        params.train_generator.model_copy(update={**settings, "accumulation": accumulation}) for accumulation in (6, 3)
    )
    out = tmp_path / "adapter-one"
    facts = train_generator(train=train, held_out=nothing, setup=setup, params=one, out=out, checkpoints=out / "states")
    assert facts["processes"] == 1
    train.to_parquet(tmp_path / "train.parquet")
    setup.items.to_parquet(tmp_path / "items.parquet")
    (tmp_path / "params.json").write_text(two.model_dump_json(by_alias=True))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    runs = []
    for rank in range(2):
        environment = {
            **os.environ,
            "RANK": str(rank),
            "LOCAL_RANK": str(rank),
            "WORLD_SIZE": "2",
            "LOCAL_WORLD_SIZE": "2",
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": str(port),
            "ACCELERATE_USE_CPU": "true",
        }
        command = [sys.executable, "-c", TRAIN, str(tmp_path), str(setup.base_model)]
        runs.append(subprocess.Popen(command, cwd=ROOT, env=environment))
    assert [run.wait(timeout=240) for run in runs] == [0, 0]
    logs = {
        name: np.genfromtxt(tmp_path / f"adapter-{name}" / "training.csv", delimiter=",", skip_header=1)
        for name in ("one", "0")
    }
    assert len(logs["one"]) > 1, "more than one optimizer step"
    np.testing.assert_array_equal(logs["one"][:, 3:], logs["0"][:, 3:])  # tokens and targets of all processes
    np.testing.assert_allclose(logs["one"][:, 1], logs["0"][:, 1], atol=2e-3)
    alone, first, second = (
        load_file(tmp_path / f"adapter-{name}" / "adapter_model.safetensors") for name in ("one", "0", "1")
    )
    for name, weights in alone.items():
        np.testing.assert_array_equal(first[name], second[name])
        np.testing.assert_allclose(first[name], weights, atol=2e-3)
