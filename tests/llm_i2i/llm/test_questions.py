import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_i2i.errors import BaseModelError
from llm_i2i.llm.engine.trie import Catalogue, tokenize_catalogue
from llm_i2i.llm.identifiers import Vocabulary
from llm_i2i.llm.prompts import DiscriminatorPrompt, discriminator_prompt, discriminator_template, recent_that_fit
from llm_i2i.llm.questions import questions
from llm_i2i.llm.role import Role

PROMPT = DiscriminatorPrompt(np.array([1, 2]), np.array([3]), np.array([4, 5]), yes_id=6, no_id=7)


def role_of(prompt, catalogue, context) -> Role:
    return Role(None, None, prompt, Vocabulary(None, catalogue, None), None, context)


def catalogue_of(lengths) -> Catalogue:
    """Items whose tokens are 10 x item + 100 throughout, ended by token 0."""
    tokens = np.full((len(lengths), max(lengths)), -1)
    for item, length in enumerate(lengths):
        tokens[item, :length] = 10 * item + 100
        tokens[item, length - 1] = 0
    return Catalogue(tokens, np.array(lengths), 0)


@given(st.lists(st.integers(1, 9), max_size=8), st.integers(-5, 60))
def test_the_oldest_items_go_first(lengths, room):
    history = np.arange(len(lengths))
    kept = recent_that_fit(history, np.array(lengths, dtype=np.int64), room)
    assert np.array_equal(kept, history[len(history) - len(kept) :])
    total = sum(lengths[len(lengths) - len(kept) :])
    assert total <= max(room, 0)
    if len(kept) < len(history):
        assert total + lengths[len(lengths) - len(kept) - 1] > room


@given(st.data())
def test_truncation_never_touches_candidate_or_answer(data):
    lengths = data.draw(st.lists(st.integers(2, 30), min_size=2, max_size=9))
    split = data.draw(st.integers(1, len(lengths) - 1))
    context = data.draw(st.integers(1, 120))
    catalogue, history = catalogue_of(lengths), np.arange(split)
    candidates = np.arange(split, len(lengths))
    labels = candidates % 2
    needed = 3 + max(lengths[c] - 1 for c in candidates) + 2
    if needed > context:
        with pytest.raises(BaseModelError, match="without a history"):
            questions(history, candidates, labels, role_of(PROMPT, catalogue, context))
        return
    found = questions(history, candidates, labels, role_of(PROMPT, catalogue, context))
    beginning = found.ids[found.blocks == 0]
    assert beginning[:2].tolist() == [1, 2]
    assert beginning[-1] == 3
    for number, candidate in enumerate(candidates, start=1):
        block = found.ids[found.blocks == number]
        assert block.tolist() == [*catalogue.item(int(candidate))[:-1], 4, 5]
        assert len(beginning) + len(block) <= context
        assert np.flatnonzero(found.blocks == number)[-1] == found.positions[number - 1], "the answer's place"
    assert np.array_equal(found.labels, labels)


def test_a_title_of_10000_characters_empties_the_history_and_is_asked_about_whole(tokenizer):
    prompt = discriminator_prompt(tokenizer, discriminator_template("discriminator_v1"))
    catalogue = tokenize_catalogue(["short", "x" * 10_000, "other"], tokenizer)
    own = len(prompt.prefix) + len(prompt.between) + len(prompt.suffix)
    args = (np.array([0, 2]), np.array([1]), np.array([1]))
    whole = int(catalogue.lengths[1]) - 1 + own
    found = questions(*args, role_of(prompt, catalogue, whole))
    assert len(found) == whole
    with_one = questions(*args, role_of(prompt, catalogue, whole + int(catalogue.lengths[2])))
    assert tokenizer.decode(with_one.ids).count("other") == 1
    assert "short" not in tokenizer.decode(with_one.ids)
    with pytest.raises(BaseModelError, match="shorten"):
        questions(*args, role_of(prompt, catalogue, whole - 1))
