"""A patched index is, bit by bit, the one computed from nothing."""

import importlib

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse

from llm_i2i.i2i import bm25, swing
from llm_i2i.i2i._similar import heaviest_first
from llm_i2i.i2i.patch import row_keys
from llm_i2i.i2i.train import train_index
from llm_i2i.i2i.user_items import user_items_from_frame
from llm_i2i.params import TrainI2iParams
from tests.conftest import whole_params

OPTIONS = whole_params()["train_i2i"]
VARIANTS = {
    "swing": ("swing", {}),
    "flat swing": ("swing", {"user_shift": 15.0, "user_exponent": 0.3, "smoothing": 0.0}),
    "tuned swing": ("swing_tuned", {"self_pair_weight": 1.0, "popularity_exponent": 0.0}),
    "swing by popularity": ("swing_tuned", {"self_pair_weight": 0.0, "popularity_exponent": 0.4}),
    "item_knn": ("item_knn", {}),
}
PAIRS = st.sets(st.tuples(st.integers(0, 9), st.integers(0, 8)), min_size=1, max_size=45)


def index(pairs, n_items, variant, kept=None, top_k=3) -> pd.DataFrame:
    """Train on pairs of user and item; ids are written so that new ones come between known ones."""
    name, options = VARIANTS[variant]
    section = {**OPTIONS[name], **options, **({"top_k": top_k} if name.endswith("tuned") else {})}
    params = TrainI2iParams.model_validate({**OPTIONS, name: section, "top_k": top_k})
    rows = sorted((f"u{(7 * user) % 10}", f"i{(5 * item) % 9}") for user, item in pairs)
    fused = pd.DataFrame(rows, columns=["user_id", "item_id"]).astype("str").assign(source="real", weight=1.0)
    items = pd.DataFrame({"item_id": pd.Series(sorted(f"i{(5 * item) % 9}" for item in range(n_items)), dtype="str")})
    return train_index(model=name, fused=fused, items=items, params=params, seed=1, kept=kept)


@settings(max_examples=60, deadline=None)
@given(days=st.lists(PAIRS, min_size=2, max_size=4), variant=st.sampled_from(list(VARIANTS)), data=st.data())
def test_days_of_additions_removals_and_new_items(days, variant, data, tmp_path_factory):
    """A day brings interactions, new users and new items among them, and takes users away."""
    kept = tmp_path_factory.mktemp("kept") / "index.npz"
    pairs, n_items = set(), 1
    for day in days:
        gone = data.draw(st.sets(st.integers(0, 9), max_size=3))
        pairs = {pair for pair in pairs if pair[0] not in gone} | day
        n_items = max(n_items, 1 + max(item for _, item in pairs))
        patched = index(pairs, n_items, variant, kept)
        pd.testing.assert_frame_equal(patched, index(pairs, n_items, variant))
        pd.testing.assert_frame_equal(patched, index(pairs, n_items, variant, kept))


def computed(monkeypatch, pairs, n_items, variant, kept) -> int:
    """How many rows a training computed."""
    seen = []

    def order(*given, wanted, **more):
        seen.append(int(wanted.sum()))
        return heaviest_first(*given, wanted=wanted, **more)

    with monkeypatch.context() as patch:
        for module in ("swing", "_similar"):  # by attribute, llm_i2i.i2i.swing is the function
            patch.setattr(importlib.import_module(f"llm_i2i.i2i.{module}"), "heaviest_first", order)
        index(pairs, n_items, variant, kept)
    return seen[0]


def test_only_rows_of_users_who_changed_are_computed(monkeypatch, tmp_path):
    """Users 0 to 4 take items 0 to 3, users 5 to 9 items 4 to 7: what happens in one group is nothing to the other."""
    pairs = {(user, item) for user in range(10) for item in range(4 * (user // 5), 4 * (user // 5) + 4)}
    pairs -= {(0, 3)}
    assert computed(monkeypatch, pairs, 8, "swing", tmp_path / "a.npz") == 8
    assert computed(monkeypatch, pairs, 8, "swing", tmp_path / "a.npz") == 0
    assert computed(monkeypatch, pairs | {(0, 3)}, 8, "swing", tmp_path / "a.npz") == 4
    assert computed(monkeypatch, pairs | {(0, 3)}, 9, "swing", tmp_path / "a.npz") == 1, "the new item's own row"
    # A cosine has the counts of both items: without user 9, its items' rows and those of their neighbours change.
    assert computed(monkeypatch, pairs, 8, "item_knn", tmp_path / "b.npz") == 8
    assert computed(monkeypatch, {p for p in pairs if p[0] != 9}, 8, "item_knn", tmp_path / "b.npz") == 4


def test_other_options_other_bytes_and_a_torn_file_take_nothing_over(monkeypatch, tmp_path):
    pairs, kept = {(user, item) for user in range(6) for item in range(5)}, tmp_path / "kept.npz"
    index(pairs, 5, "swing", kept)
    assert computed(monkeypatch, pairs, 5, "flat swing", kept) == 5
    kept.write_bytes(b"torn")
    assert computed(monkeypatch, pairs, 5, "flat swing", kept) == 5
    monkeypatch.setattr("llm_i2i.i2i.patch.numba.__version__", "0")
    assert computed(monkeypatch, pairs, 5, "flat swing", kept) == 5


def test_users_who_change_places_are_another_row():
    """Sums run over users in the order of their ids."""
    items = pd.DataFrame({"item_id": pd.Series(["a", "b", "c"], dtype="str")})
    keys = []
    for users in (("x", "y"), ("y", "x")):
        rows = [(users[0], "a"), (users[0], "b"), (users[1], "b"), (users[1], "c"), (users[1], "a")]
        matrix = user_items_from_frame(pd.DataFrame(rows, columns=["user_id", "item_id"]).astype("str"), items)
        keys.append(row_keys(matrix, pd.Index(["x", "y"]), pd.Index(items["item_id"]), counts=False))
    assert (keys[0] != keys[1]).all()


def test_every_score_of_bm25_changes_with_one_interaction():
    """Why BM25 is never patched: its mean length is in every score."""
    dense = np.kron(np.eye(2), np.ones((4, 3)))
    more = dense.copy()
    more[0, 3] = 1.0
    before, after = (
        bm25(sparse.csr_array(m.astype(np.float32)), top_k=5, k1=1.2, b=0.5).toarray() for m in (dense, more)
    )
    both = (before > 0) & (after > 0)
    assert both.sum() == 12
    assert (before[both] != after[both]).all()


@pytest.mark.parametrize("top_k", [1, 100])
def test_rows_that_are_not_wanted_stay_empty(top_k):
    matrix = sparse.csr_array((np.random.default_rng(0).random((30, 8)) < 0.5).astype(np.float32))
    wanted = np.arange(8) % 2 == 0
    whole, some = swing(matrix, top_k=top_k), swing(matrix, top_k=top_k, wanted=wanted)
    assert (np.diff(some.indptr)[~wanted] == 0).all()
    np.testing.assert_array_equal(some.toarray()[wanted], whole.toarray()[wanted])
