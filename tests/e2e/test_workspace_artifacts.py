"""What the last `dvc repro` left in this very workspace; skipped where it has not run."""

import pandas as pd
import pytest

from llm_i2i.files import read_json
from llm_i2i.schema import INTERACTIONS, ITEMS, SYNTHETIC, read_table
from tests.conftest import ROOT

ARTIFACTS = ROOT / "artifacts"
pytestmark = pytest.mark.skipif(
    not (ARTIFACTS / "proposed" / "generator.parquet").is_file(), reason="`dvc repro` has not run in this workspace"
)


def test_every_synthetic_row_is_a_catalogue_item_outside_the_users_history() -> None:
    synthetic = read_table(ARTIFACTS / "proposed" / "generator.parquet", SYNTHETIC)
    synthetic = synthetic[~synthetic["held_out"]]
    items = read_table(ARTIFACTS / "items" / "items.parquet", ITEMS)
    train = read_table(ARTIFACTS / "split" / "train.parquet", INTERACTIONS)
    assert len(synthetic) > 0
    assert synthetic["item_id"].isin(items["item_id"]).all()
    taken = pd.MultiIndex.from_frame(train[["user_id", "item_id"]])
    assert not pd.MultiIndex.from_frame(synthetic[["user_id", "item_id"]]).isin(taken).any()
    assert not synthetic.duplicated(["user_id", "item_id"]).any()


def test_adapters_load_with_plain_peft_onto_the_4_bit_base() -> None:
    if read_json(ARTIFACTS / "identifiers" / "tokens.json"):
        pytest.skip("items are new tokens: the base has to be given them first")
    from peft import PeftModel

    from llm_i2i.llm.engine.device import resolve_runtime
    from llm_i2i.llm.engine.models import load_quantized
    from llm_i2i.params import RuntimeParams

    runtime = resolve_runtime(RuntimeParams(device="cpu", precision="auto", threads=0, processes=1, engine="local"))
    for adapter in ("generator", "discriminator"):
        base = load_quantized(ARTIFACTS / "base_model", runtime)
        assert base.is_loaded_in_4bit
        model = PeftModel.from_pretrained(base, str(ARTIFACTS / adapter))
        assert any("lora_A" in name for name, _ in model.named_parameters())
