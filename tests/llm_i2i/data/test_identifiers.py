import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llm_i2i.data.identifiers import FEATURES, identify_items, item_features, semantic_codes
from llm_i2i.params import IdentifyParams


def named(identifier: str, levels: int = 3, size: int = 4) -> IdentifyParams:
    return IdentifyParams(identifier=identifier, code_levels=levels, code_size=size)


def catalogue(texts: list[str], ids: list[str] | None = None) -> pd.DataFrame:
    ids = ids or [f"i{n:03d}" for n in range(len(texts))]
    return pd.DataFrame({"item_id": ids, "text": texts}).astype("str")


def taken(pairs: list[tuple[int, int]]) -> pd.DataFrame:
    rows = [(f"u{user}", f"i{item:03d}", 0, n) for n, (user, item) in enumerate(pairs)]
    return pd.DataFrame(rows, columns=["user_id", "item_id", "timestamp", "position"])


def words(items: pd.DataFrame) -> np.ndarray:
    """Text vectors: which of the catalogue's words an item has."""
    vocabulary = sorted({word for text in items["text"] for word in text.split()})
    return np.array([[float(word in text.split()) for word in vocabulary] for text in items["text"]])


# Two genres of words and two groups of users, twelve items each: no overlap between them.
WORDS = [f"red apple {n}" for n in range(12)] + [f"steel hammer {n}" for n in range(12)]
TAKEN = [(user, item) for user in range(8) for item in range(24) if (user % 2) == (item // 12)]


@pytest.fixture(scope="module")
def items() -> pd.DataFrame:
    return catalogue(WORDS)


@pytest.mark.parametrize("identifier", ["title", "id", "token", "code"])
def test_unique_in_item_order_and_made_of_the_new_tokens(items, identifier):
    texts, tokens = identify_items(items, taken(TAKEN), text=words(items), params=named(identifier), seed=1)
    assert len(texts) == len(set(texts)) == len(items)
    assert len(tokens) == len(set(tokens))
    assert all("\n" not in text and text for text in texts)
    expected = {"title": WORDS, "id": items["item_id"].tolist()}
    if identifier in expected:
        assert (texts, tokens) == (expected[identifier], [])
    else:
        spelled = [text.replace("><", "> <").split() for text in texts]
        assert {token for run in spelled for token in run} == set(tokens)
        assert {len(run) for run in spelled} == {1 if identifier == "token" else 4}


def test_item_ids_of_odd_characters_stay_apart():
    texts, _ = identify_items(
        catalogue(["a", "b", "c", "d"], ["x\ny", "x y", "\u200e", "<s>"]),
        taken([]),
        text=np.zeros((4, 2)),
        params=named("id"),
        seed=1,
    )
    assert len(set(texts)) == 4
    assert all(text and text.isprintable() for text in texts)
    assert texts[3] == "<s>"


def test_first_level_separates_what_differs_in_words_and_users(items):
    codes = semantic_codes(item_features(items, taken(TAKEN), text=words(items), seed=1), levels=2, size=2, seed=1)
    assert len(set(codes[:12, 0])) == len(set(codes[12:, 0])) == 1
    assert codes[0, 0] != codes[12, 0]


def test_hand_computed_residuals():
    # Level 1 centroids 0.5 and 10.5; both halves then leave -0.5 and +0.5, which level 2 tells apart.
    codes = semantic_codes(np.array([[0.0], [1.0], [10.0], [11.0]]), levels=2, size=2, seed=0)
    assert codes[0, 0] == codes[1, 0] != codes[2, 0] == codes[3, 0]
    assert codes[0, 1] == codes[2, 1] != codes[1, 1] == codes[3, 1]
    assert codes[:, 2].tolist() == [0, 0, 0, 0]


@given(st.lists(st.integers(0, 5), min_size=1, max_size=30), st.integers(1, 3), st.integers(2, 5), st.integers(0, 3))
@settings(max_examples=20, deadline=None)
def test_codes_are_unique_and_equal_items_differ_in_the_last_token_only(values, levels, size, seed):
    features = np.array(values, dtype=np.float64)[:, None]
    codes = semantic_codes(features, levels=levels, size=size, seed=seed)
    assert len(np.unique(codes, axis=0)) == len(values)
    assert codes.min() >= 0
    assert codes[:, :levels].max() < size
    for value in set(values):
        same = codes[np.array(values) == value]
        assert len(np.unique(same[:, :levels], axis=0)) == 1


def test_the_same_seed_gives_the_same_codes_and_rows_order_carries_nothing(items):
    train = taken(TAKEN)
    first = identify_items(items, train, text=words(items), params=named("code"), seed=5)
    assert first == identify_items(items, train, text=words(items), params=named("code"), seed=5)
    features = item_features(items, train, text=words(items), seed=5)
    shuffled = item_features(items, train.sample(frac=1, random_state=3), text=words(items), seed=5)
    np.testing.assert_allclose(features, shuffled, atol=1e-9)


def test_only_code_reads_interactions_and_only_training_ones(items):
    for identifier in ("title", "id", "token"):
        assert identify_items(items, taken([]), text=words(items), params=named(identifier), seed=1) == identify_items(
            items, taken(TAKEN), text=words(items), params=named(identifier), seed=1
        )


def test_features_of_items_without_words_or_users_are_zero():
    features = item_features(catalogue(["one", "two", "three"]), taken([]), text=np.zeros((3, 0)), seed=1)
    assert features.shape == (3, 0)
    codes = semantic_codes(features.reshape(3, 0) if features.shape[1] else np.zeros((3, 1)), levels=2, size=4, seed=1)
    assert codes.tolist() == [[0, 0, 0], [0, 0, 1], [0, 0, 2]]
    named_twice = catalogue(["a b", "a b c", "a d"])
    cold = item_features(named_twice, taken([(0, 0), (0, 1), (1, 0), (2, 1)]), text=words(named_twice), seed=1)
    assert cold.shape[1] <= 2 * FEATURES
    assert np.isfinite(cold).all()
