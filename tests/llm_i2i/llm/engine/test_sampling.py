"""Drawing items: the distribution, reproducibility, the nucleus."""

from itertools import permutations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from llm_i2i.llm.engine.beam import NextItems, beam_search
from llm_i2i.llm.engine.sampling import Sampling, gumbel_noise, nucleus
from llm_i2i.llm.engine.trie import tokenize_catalogue

TEXTS = ["a", "ab", "abc", "b", "story", "stone"]
PROMPT = np.array([1, 50, 60, 70])
EXCLUDED = np.array([3])


@pytest.fixture(scope="module")
def catalogue(tokenizer):
    return tokenize_catalogue(TEXTS, tokenizer)


def draw(module, catalogue, keys, *, prompts=None, temperature=1.0, n=2, num_beams=2, seed=0):
    model = NextItems(module, catalogue, torch.device("cpu"), softmax="vocabulary")
    noise = torch.from_numpy(gumbel_noise(keys, len(model.trie.n_leaves), seed=seed))
    return beam_search(
        model,
        prompts or [PROMPT] * len(keys),
        [EXCLUDED] * len(keys),
        n=n,
        num_beams=num_beams,
        sampling=Sampling(temperature, noise),
    )


@torch.no_grad()
def exact_q(module, catalogue, temperature) -> np.ndarray:
    """The distribution by its definition: a softmax at every prefix over the tokens that lead to an open item."""
    open_items = [i for i in range(len(TEXTS)) if i not in EXCLUDED]
    sequences = {i: catalogue.item(i).tolist() for i in open_items}
    q = np.zeros(len(TEXTS))
    for item, tokens in sequences.items():
        q[item] = 1.0
        for t, token in enumerate(tokens):
            prefix = tokens[:t]
            ids = torch.from_numpy(np.concatenate([PROMPT, prefix]).astype(np.int64))[None]
            logits = module.lm(input_ids=ids).logits[0, -1].double()
            children = sorted({s[t] for s in sequences.values() if s[:t] == prefix})
            shares = (logits[children] / temperature).softmax(0)
            q[item] *= shares[children.index(token)].item()
    return q


@pytest.mark.parametrize("temperature", [0.5, 2.0])
def test_draws_follow_the_distribution_without_replacement(module, catalogue, temperature):
    q = exact_q(module, catalogue, temperature)
    assert q.sum() == pytest.approx(1.0)
    n_draws = 6000
    keys = [str(k) for k in range(n_draws)]
    found = np.concatenate(
        [draw(module, catalogue, keys[k : k + 1500], temperature=temperature).items for k in range(0, n_draws, 1500)]
    )
    for first, second in permutations(np.flatnonzero(q), 2):
        expected = q[first] * q[second] / (1 - q[first])
        share = ((found[:, 0] == first) & (found[:, 1] == second)).mean()
        # Five standard errors: 40 comparisons, one false alarm in about 40,000 runs of new seeds.
        assert abs(share - expected) < 5 * np.sqrt(expected * (1 - expected) / n_draws) + 1e-3


def test_log_q_is_the_distributions(module, catalogue):
    found = draw(module, catalogue, ["u"], temperature=0.7, n=5, num_beams=8)
    assert sorted(found.items[0]) == [0, 1, 2, 4, 5]
    exact = exact_q(module, catalogue, 0.7)
    np.testing.assert_allclose(np.exp(found.log_q[0]), exact[found.items[0]], rtol=1e-3)


def test_a_low_temperature_gives_the_greedy_path_first(module, catalogue):
    greedy = exact_q(module, catalogue, 1e-3).argmax()
    assert draw(module, catalogue, ["a", "b", "c"], temperature=1e-6, n=1).items.ravel().tolist() == [greedy] * 3


def test_a_users_items_depend_on_no_other_user(module, catalogue):
    rng = np.random.default_rng(1)
    keys = ["x", "y", "z"]
    prompts = [np.concatenate([[1], rng.integers(3, 200, size=k)]) for k in (3, 9, 30)]
    together = draw(module, catalogue, keys, prompts=prompts)
    turned = draw(module, catalogue, keys[::-1], prompts=prompts[::-1])
    assert together.items.tolist() == turned.items[::-1].tolist()
    for row, key in enumerate(keys):
        alone = draw(module, catalogue, [key], prompts=[prompts[row]])
        assert alone.items[0].tolist() == together.items[row].tolist()
    others = [draw(module, catalogue, keys, prompts=prompts, seed=s).items.tolist() for s in range(1, 6)]
    assert any(other != together.items.tolist() for other in others)


def test_asking_for_more_than_there_is_ends_with_gaps(module, catalogue):
    found = draw(module, catalogue, ["u"], n=7, num_beams=7)
    assert sorted(found.items[0]) == [-1, -1, 0, 1, 2, 4, 5]
    assert np.isneginf(found.log_q[0, -2:]).all()


def test_nucleus_by_hand():
    log_q = np.log(np.array([[0.1, 0.4, 0.2], [0.3, 0.0001, 0.0001]]))
    assert nucleus(log_q, 1.0).all()
    assert nucleus(log_q, 0.5).tolist() == [[False, True, False], [True, False, False]]
    assert nucleus(log_q, 0.6).tolist() == [[False, True, True], [True, False, False]]


@given(st.lists(st.floats(-50, 0), min_size=1, max_size=8), st.floats(0.001, 1.0), st.floats(0.001, 1.0))
def test_a_nucleus_is_never_empty_and_grows_with_top_p(values, one, other):
    log_q = np.array([[*values, -np.inf]])
    small, large = nucleus(log_q, min(one, other)), nucleus(log_q, max(one, other))
    assert small.any()
    assert not (small & ~large).any()
    assert not large[0, -1]
