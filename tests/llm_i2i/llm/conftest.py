"""A tiny random Llama, prepared once: the same code path as a real model, in milliseconds."""

import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from llm_i2i.arrays import FloatArray
from llm_i2i.llm.engine.base_model import prepare_base_model
from llm_i2i.llm.engine.device import Runtime
from llm_i2i.llm.engine.logits import TargetLogits
from llm_i2i.llm.engine.models import load_for_inference, load_tokenizer
from llm_i2i.llm.identifiers import Identifiers
from llm_i2i.llm.role import LlmSetup
from llm_i2i.llm.text_vectors import encode_items
from llm_i2i.params import Params, RuntimeParams, load_params
from llm_i2i.schema import HELD_OUT

ROOT = Path(__file__).parents[3]


@pytest.fixture(scope="session")
def params() -> Params:
    return load_params(ROOT / "params.yaml")


@pytest.fixture(scope="session")
def cpu_fp32() -> RuntimeParams:
    return RuntimeParams(device="cpu", precision="fp32", threads=1, processes=1, engine="local")


@pytest.fixture(scope="session")
def runtime() -> Runtime:
    torch.set_num_threads(1)
    return Runtime(torch.device("cpu"), torch.float32)


@pytest.fixture(scope="session")
def base_model(tmp_path_factory: pytest.TempPathFactory, params: Params) -> Path:
    folder = tmp_path_factory.mktemp("base_model")
    source = params.base_model.model_copy(update={"source": "random"})
    prepare_base_model(source, seed=7, out=folder, downloads=folder)
    return folder


@pytest.fixture(scope="session")
def tokenizer(base_model: Path):
    return load_tokenizer(base_model)


@pytest.fixture(scope="session")
def module(base_model: Path, runtime: Runtime) -> TargetLogits:
    return TargetLogits(load_for_inference(base_model, None, runtime))


def _title(number: int) -> str:
    words = ["Red", "Blue", "Old", "Sea", "Stone", "Night", "Toy", "Story"]
    return re.sub(" +", " ", f"{words[number % 8]} {words[(number * 3) % 7]} {number}").strip()


@pytest.fixture(scope="session")
def items() -> pd.DataFrame:
    ids = sorted(f"i{n:02d}" for n in range(40))
    return pd.DataFrame(
        {
            "item_id": ids,
            "title": [_title(n) for n in range(40)],
            "text": [_title(n) for n in range(40)],
            "n_train": np.arange(40),
            "bucket": ["cold"] + ["tail"] * 9 + ["mid"] * 20 + ["head"] * 10,
            "is_long_tail": [0 < n < 10 for n in range(40)],
        }
    ).astype({"item_id": "str", "title": "str", "text": "str", "bucket": "str"})


@pytest.fixture(scope="session")
def train(items: pd.DataFrame) -> pd.DataFrame:
    rng = np.random.default_rng(0)
    rows = []
    for user in range(24):
        taken = rng.choice(40, size=int(rng.integers(2, 20)), replace=False)
        rows += [(f"u{user:02d}", items["item_id"][i], 100 + p, p) for p, i in enumerate(taken)]
    table = pd.DataFrame(rows, columns=["user_id", "item_id", "timestamp", "position"])
    return table.astype({"user_id": "str", "item_id": "str", "timestamp": "int64", "position": "int32"})


@pytest.fixture(scope="session")
def text(items: pd.DataFrame, params: Params, cpu_fp32: RuntimeParams) -> FloatArray:
    """Text vectors of the items, by their own words."""
    tfidf = params.encode_text.model_copy(update={"source": "tfidf"})
    return encode_items(items, tfidf, runtime=cpu_fp32, downloads=Path())[0]


@pytest.fixture(scope="session")
def setup(items: pd.DataFrame, text: FloatArray, base_model: Path, cpu_fp32: RuntimeParams) -> LlmSetup:
    """Items named by their titles."""
    return LlmSetup(items, Identifiers(tuple(items["text"])), text, base_model, cpu_fp32, seed=1)


@pytest.fixture(scope="session")
def nothing() -> pd.DataFrame:
    """No item is held out."""
    return pd.DataFrame(columns=list(HELD_OUT)).astype(HELD_OUT)


@pytest.fixture(scope="session")
def held_out(train: pd.DataFrame) -> pd.DataFrame:
    """The last item of every other user with three."""
    last = train[~train.duplicated("user_id", keep="last") & (train["position"] >= 2)]
    return last[list(HELD_OUT)].iloc[::2].reset_index(drop=True)
