import numpy as np
import pytest
import torch

from llm_i2i.errors import GenerationError
from llm_i2i.llm.beam import beam_search
from llm_i2i.llm.trie import TrieOnDevice, build_trie, tokenize_catalogue

TEXTS = ["a", "ab", "abc", "b", "ba", "story", "stone", "store", "x1", "x2", "x22", "zebra"]
NONE = np.empty(0, dtype=np.int64)


@pytest.fixture(scope="module")
def catalogue(tokenizer):
    return tokenize_catalogue(TEXTS, tokenizer)


def search(module, catalogue, prompts, excluded, n, num_beams, softmax="vocabulary"):
    trie = build_trie(catalogue)
    on_device = TrieOnDevice.of(trie, torch.device("cpu"))
    return beam_search(
        module, prompts, trie, on_device, excluded, n=n, num_beams=num_beams, pad_id=0, softmax=softmax
    )


def exact_logprobs(module, catalogue, prompt, softmax="vocabulary") -> np.ndarray:
    """log P(item | prompt) of every item by one plain forward pass each, by the library's own model."""
    words = [tuple(catalogue.item(index).tolist()) for index in range(len(TEXTS))]
    result = []
    for index in range(len(TEXTS)):
        item = catalogue.item(index)
        ids = torch.from_numpy(np.concatenate([prompt, item]))[None]
        logits = module.lm(input_ids=ids).logits[0, len(prompt) - 1 : -1].float()
        if softmax == "catalogue":
            for place, row in enumerate(logits):
                going_on = {word[place] for word in words if word[:place] == words[index][:place]}
                row[[token for token in range(len(row)) if token not in going_on]] = float("-inf")
        logits = logits.log_softmax(-1)
        result.append(logits[torch.arange(len(item)), torch.from_numpy(item)].sum().item())
    return np.array(result)


@pytest.mark.parametrize("softmax", ["vocabulary", "catalogue"])
@torch.no_grad()
def test_wide_beam_is_exhaustive_and_scores_are_log_probabilities(module, catalogue, softmax):
    prompts = [np.array([1, 50, 60, 70]), np.array([1, 99])]
    generated = search(module, catalogue, prompts, [NONE, NONE], n=len(TEXTS), num_beams=32, softmax=softmax)
    for row, prompt in enumerate(prompts):
        exact = exact_logprobs(module, catalogue, prompt, softmax)
        assert generated.items[row].tolist() == np.argsort(-exact).tolist()
        np.testing.assert_allclose(generated.logprobs[row], np.sort(exact)[::-1], atol=1e-4)
        # Over the catalogue it is a distribution; as text the catalogue has little of the mass.
        assert (np.exp(exact).sum() == pytest.approx(1.0, abs=1e-4)) == (softmax == "catalogue")


@pytest.mark.parametrize("softmax", ["vocabulary", "catalogue"])
@torch.no_grad()
def test_excluded_items_never_come_out_and_the_rest_keep_their_scores(module, catalogue, softmax):
    prompt = np.array([1, 20, 30])
    excluded = np.array([0, 2, 5, 6, 7])  # "a" and "abc" stay open through "ab"; all of "sto..." is closed
    generated = search(module, catalogue, [prompt], [excluded], n=len(TEXTS), num_beams=32, softmax=softmax)
    found = generated.items[0][generated.items[0] >= 0]
    assert sorted(found) == sorted(set(range(len(TEXTS))) - set(excluded.tolist()))
    exact = exact_logprobs(module, catalogue, prompt, softmax)
    np.testing.assert_allclose(generated.logprobs[0][: len(found)], exact[found], atol=1e-4)
    assert np.isneginf(generated.logprobs[0][len(found) :]).all()


@torch.no_grad()
def test_padding_and_neighbours_in_the_batch_change_nothing(module, catalogue):
    rng = np.random.default_rng(1)
    prompts = [np.concatenate([[1], rng.integers(3, 200, size=k)]) for k in (3, 9, 30)]
    together = search(module, catalogue, prompts, [NONE] * 3, n=3, num_beams=4)
    assert np.isfinite(together.logprobs).all()
    for row, prompt in enumerate(prompts):
        alone = search(module, catalogue, [prompt], [NONE], n=3, num_beams=4)
        assert alone.items[0].tolist() == together.items[row].tolist()
        np.testing.assert_allclose(alone.logprobs[0], together.logprobs[row], atol=1e-4)


@torch.no_grad()
def test_a_narrow_beam_still_returns_n_distinct_catalogue_items(module, catalogue):
    generated = search(module, catalogue, [np.array([1, 5])], [NONE], n=2, num_beams=2)
    assert len(set(generated.items[0])) == 2
    assert (generated.items[0] >= 0).all()


def test_a_history_of_the_whole_catalogue_is_an_error(module, catalogue):
    with pytest.raises(GenerationError, match="whole catalogue"):
        search(module, catalogue, [np.array([1])], [np.arange(len(TEXTS))], n=1, num_beams=1)


@pytest.mark.parametrize("softmax", ["vocabulary", "catalogue"])
@torch.no_grad()
def test_narrow_beams_are_those_of_the_library(module, catalogue, softmax):
    """`generate` with a Python callback over the same catalogue, history excluded, prompts that share a beginning."""
    rng = np.random.default_rng(3)
    prompts = [np.concatenate([[1, 7, 8, 9], rng.integers(20, 200, size=k)]) for k in (2, 6, 11)]
    # The library's softmax is over the open items: the same where nothing is closed.
    excluded = np.array([1, 5]) if softmax == "vocabulary" else NONE
    ours = search(module, catalogue, prompts, [excluded] * 3, n=2, num_beams=3, softmax=softmax)
    open_items = {tuple(catalogue.item(i).tolist()): i for i in range(len(TEXTS)) if i not in excluded}
    for row, prompt in enumerate(prompts):
        length = len(prompt)

        def allowed(_, sequence, start=length):
            made = tuple(sequence[start:].tolist())
            return sorted({ids[len(made)] for ids in open_items if ids[: len(made)] == made != ids}) or [
                catalogue.end_id
            ]

        out = module.lm.generate(
            input_ids=torch.from_numpy(prompt)[None],
            attention_mask=torch.ones((1, len(prompt)), dtype=torch.long),
            prefix_allowed_tokens_fn=allowed,
            num_beams=3,
            num_return_sequences=2,
            do_sample=False,
            renormalize_logits=softmax == "catalogue",
            length_penalty=0.0,
            max_new_tokens=int(catalogue.lengths.max()),
            eos_token_id=catalogue.end_id,
            pad_token_id=catalogue.end_id,
        )[:, len(prompt) :].tolist()
        theirs = [open_items[tuple(ids[: ids.index(catalogue.end_id) + 1])] for ids in out]
        assert ours.items[row].tolist() == theirs
