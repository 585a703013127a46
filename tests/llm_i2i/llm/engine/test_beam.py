import numpy as np
import pytest
import torch

from benchmarks.llm import library_search
from llm_i2i.errors import GenerationError, TrainingError
from llm_i2i.llm.engine.beam import NextItems, beam_search
from llm_i2i.llm.engine.trie import tokenize_catalogue

TEXTS = ["a", "ab", "abc", "b", "ba", "story", "stone", "store", "x1", "x2", "x22", "zebra"]
NONE = np.empty(0, dtype=np.int64)


@pytest.fixture(scope="module")
def catalogue(tokenizer):
    return tokenize_catalogue(TEXTS, tokenizer)


def search(module, catalogue, prompts, excluded, n, num_beams, softmax="vocabulary"):
    model = NextItems(module, catalogue, torch.device("cpu"), softmax=softmax)
    return beam_search(model, prompts, excluded, n=n, num_beams=num_beams)


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


def prompts_that_share_a_beginning():
    rng = np.random.default_rng(3)
    return [np.concatenate([[1, 7, 8, 9], rng.integers(20, 200, size=k)]) for k in (2, 6, 11)]


@torch.no_grad()
def test_narrow_beams_are_those_of_the_library(module, catalogue):
    prompts, excluded = prompts_that_share_a_beginning(), np.array([1, 5])
    ours = search(module, catalogue, prompts, [excluded] * 3, n=2, num_beams=3)
    options = {"n": 2, "num_beams": 3, "renormalize_logits": False}
    for row, prompt in enumerate(prompts):
        theirs, _ = library_search(module, catalogue, [prompt], [excluded], **options)
        assert ours.items[row].tolist() == theirs[0]


@pytest.mark.parametrize(("num_beams", "n"), [(len(TEXTS), len(TEXTS)), (4, 3)])
@torch.no_grad()
def test_from_fork_to_fork_nothing_is_missed_that_the_library_finds(module, catalogue, num_beams, n):
    """A wide search is exhaustive; in a narrow one an item gives its place free as soon as it is found."""
    prompts = prompts_that_share_a_beginning()
    ours = search(module, catalogue, prompts, [NONE] * 3, n=n, num_beams=num_beams, softmax="catalogue")
    options = {"n": n, "num_beams": num_beams, "renormalize_logits": True}
    for row, prompt in enumerate(prompts):
        theirs, logprobs = library_search(module, catalogue, [prompt], [NONE], **options)
        if num_beams == len(TEXTS):
            assert ours.items[row].tolist() == theirs[0]
        assert (ours.logprobs[row] >= logprobs[0] - 1e-4).all()


@torch.no_grad()
def test_the_model_reads_only_what_leads_to_a_fork(module, tokenizer, monkeypatch):
    texts = ["alpha one", "beta two", "gamma three four", "gamma three five"]
    catalogue = tokenize_catalogue(texts, tokenizer)
    read = []

    def extend(cache, *, keep, extend=module.extend, **inputs):
        read.append(inputs["input_ids"].shape[1])
        return extend(cache, keep=keep, **inputs)

    monkeypatch.setattr(module, "extend", extend)
    found = search(module, catalogue, [np.array([1, 5])], [NONE], n=4, num_beams=4, softmax="catalogue")
    assert sorted(found.items[0]) == [0, 1, 2, 3]
    both = min(catalogue.lengths[2:])
    shared = np.cumprod(catalogue.item(2)[:both] == catalogue.item(3)[:both]).sum()
    first = [int(catalogue.item(i)[0]) for i in range(3)]
    assert len(set(first)) == 3
    # The prompt, then in one step all that "gamma three ..." has in common.
    assert read == [2, shared]


@pytest.mark.parametrize("single_token", [False, True])
@pytest.mark.parametrize("broken_rows", [[0], [0, 1]])
def test_probabilities_that_are_no_numbers_are_an_error(module, tokenizer, monkeypatch, single_token, broken_rows):
    """Else no item would come out, and that would look like a result; also where only one row is broken."""
    catalogue = tokenize_catalogue(["a", "b", "x"] if single_token else TEXTS, tokenizer)
    model = NextItems(module, catalogue, torch.device("cpu"), softmax="vocabulary")
    real, real_extend = module.forward, module.extend
    broken = torch.tensor(broken_rows)

    def extend(*arguments, **options):
        logits = real_extend(*arguments, **options)
        return logits.index_fill(0, broken[: len(logits)], float("nan")) if len(logits) == 2 else logits

    monkeypatch.setattr(module, "forward", lambda *a: real(*a).index_fill(0, broken, float("nan")))
    monkeypatch.setattr(module, "extend", extend)
    with pytest.raises(TrainingError, match="not numbers"):
        model.top([np.array([1, 50]), np.array([1, 99])], [NONE, NONE], n=2, num_beams=2)
