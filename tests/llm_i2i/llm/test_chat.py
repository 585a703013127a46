"""Chat templates and tokenizers of the models people use, and of some they should not."""

import datetime as dt
import logging
import os

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tokenizers import normalizers

from llm_i2i.errors import BaseModelError
from llm_i2i.llm.engine.trie import item_end, tokenize_catalogue
from llm_i2i.llm.prompts import (
    DiscriminatorTemplate,
    discriminator_prompt,
    discriminator_template,
    generator_prompt,
    generator_template,
)
from tests.llm_i2i.llm.families import FAMILIES, byte_tokenizer, character_tokenizer

EXAMPLES = int(os.environ.get("FUZZ_EXAMPLES", "25"))
PIECES = (
    "{{ bos_token }}",
    "{{ eos_token }}",
    "<|im_start|>{{ m['role'] }}\n",
    "[INST] ",
    " [/INST]",
    "<|end|>\n",
    "{{ m['content'] }}",
    "{{ m.content | trim }}",
    "{{ m['content'] | upper }}",
    "{{ m['content'] | e }}",
    "{{ m['content'][0]['text'] }}",
    "{% for c in m['content'] %}{{ c['text'] }}{% endfor %}",
    "{{ m['content'] | tojson }}",
    "{% if m['role'] == 'system' %}",
    "{% if m['role'] == 'user' %}",
    "{% if loop.first %}",
    "{% if loop.last %}",
    "{% if m['content'] is string %}",
    "{% if add_generation_prompt %}",
    "{% else %}",
    "{% endif %}",
    "{% for m in messages %}",
    "{% for m in messages[1:] %}",
    "{% for m in messages | reverse %}",
    "{% endfor %}",
    "{{ messages[0]['content'] }}",
    "{{ messages[-1]['content'] }}",
    "{{ messages[7]['content'] }}",
    "{{ m.nothing.at }}",
    "{{ raise_exception('Only user and assistant roles') }}",
    "{{ strftime_now('%d %b %Y') }}",
    "{{ 1 / 0 }}",
    "{% set m = messages[0] %}",
    "{{ m['content'][:1] }}",
    "{{ m['content'] * 2 }}",
    "{% break %}",
    "{{",
    "%}",
    "{# #}",
)
HOSTILE = DiscriminatorTemplate(
    task="discriminator",
    version=1,
    system="  Rules & <b>limits</b>: answer 'Yes'\nor \"No\".",
    user="{history}\n\nÉté & {candidate}?  ",
    answer_yes="Yes",
    answer_no="No",
)


def asked(tokenizer, template=None):
    """Prefix, between and suffix as text."""
    prompt = discriminator_prompt(tokenizer, template or discriminator_template("discriminator_v1"))
    return [tokenizer.decode(part) for part in (prompt.prefix, prompt.between, prompt.suffix)]


@pytest.mark.parametrize("template", ["discriminator_v1", "discriminator_v2", None])
@pytest.mark.parametrize("family", FAMILIES)
def test_every_word_stands_exactly_once_in_its_place(family, template, caplog):
    caplog.set_level(logging.INFO)
    chat_template, place = FAMILIES[family]
    words = discriminator_template(template) if template else HOSTILE
    parts = asked(byte_tokenizer(chat_template), words)
    whole = "{history}".join([*parts[:1], "{candidate}".join(parts[1:])])
    assert whole.count(words.user) == 1
    assert whole.count(words.system) == 1
    assert whole.index(words.system) < whole.index(words.user)
    assert not set(whole) & set("\ue000\ue001\ue002\ue003")
    bare = f"<s>{words.system}\n\n{words.user}\n"
    assert (whole.rstrip(" ") == bare) == (place == "outside")
    assert ("they begin the user's turn" in caplog.text) == (place == "user's")
    assert ("stand outside of it" in caplog.text) == (place == "outside" and chat_template is not None)
    assert (f"{words.system}\n\n{words.user}" in whole) >= (place != "own")


@st.composite
def chat_templates(draw):
    """Pieces in any order; mostly a loop over messages, and what was opened is closed."""
    pieces = draw(st.lists(st.sampled_from(PIECES), min_size=1, max_size=6))
    if draw(st.integers(0, 4)):
        pieces = ["{% for m in messages %}", *pieces, "{% endfor %}"]
        pieces[-1:-1] = ["{% endif %}"] * (sum("{% if" in p for p in pieces) - pieces.count("{% endif %}"))
    return "".join(pieces)


@settings(deadline=None, max_examples=EXAMPLES, database=None, suppress_health_check=list(HealthCheck))
@given(chat_template=chat_templates())
def test_any_template_prints_every_word_once_or_is_left_out(chat_template, tally):
    tokenizer = byte_tokenizer(chat_template)
    whole = "{candidate}".join(asked(tokenizer, HOSTILE)[1:])
    whole = "{history}".join([asked(tokenizer, HOSTILE)[0], whole])
    assert whole.count(HOSTILE.user) == whole.count(HOSTILE.system) == 1
    assert whole.index(HOSTILE.system) < whole.index(HOSTILE.user)
    bare = whole.rstrip(" ") == f"<s>{HOSTILE.system}\n\n{HOSTILE.user}\n"
    tally[f"chat templates: {'words outside of it' if bare else 'used'}"] += 1


@pytest.mark.parametrize("family", FAMILIES)
def test_the_generators_words_stand_exactly_once(family):
    chat_template, _ = FAMILIES[family]
    tokenizer = byte_tokenizer(chat_template)
    for name in ("generator_v1", "generator_v2"):
        words = generator_template(name)
        text = tokenizer.decode(generator_prompt(tokenizer, words).prefix)
        assert text.count(words.user) == text.count(words.system) == 1
        assert text.count("<s>") <= 1


def test_a_prompt_is_the_same_every_day():
    today = dt.datetime.now(tz=dt.UTC)
    for family, date in (("llama-3", "26 Jul 2024"), ("smollm-3", "26 July 2024")):
        prefix, _, _ = asked(byte_tokenizer(FAMILIES[family][0]))
        assert f"Today Date: {date}\n" in prefix
        assert today.strftime("%Y") not in prefix


def test_a_model_that_may_think_first_is_told_not_to():
    _, _, suffix = asked(byte_tokenizer(FAMILIES["qwen-3"][0]))
    assert suffix.endswith("<|im_start|>assistant\n<think>\n\n</think>\n\n")


def test_several_chat_templates_without_a_default_are_none():
    tokenizer = byte_tokenizer()
    tokenizer.chat_template = {"tool_use": "{{ messages }}", "rag": "{{ messages }}"}
    prefix, _, _ = asked(tokenizer)
    assert prefix.startswith("<s>You know what people choose.")


TOKENIZERS = {
    "byte-level": byte_tokenizer(),
    "with a blank before": character_tokenizer(),
    "without": character_tokenizer(blank=False),
    "lower case": character_tokenizer(normalizer=normalizers.Lowercase()),
    "NFKC": character_tokenizer(normalizer=normalizers.NFKC()),
    "without a line feed": character_tokenizer(feed=False),
    "strips": character_tokenizer(normalizer=normalizers.Strip()),
}


@pytest.mark.parametrize("name", TOKENIZERS)
def test_what_a_tokenizer_does_to_blanks_and_case_loses_no_word(name):
    tokenizer = TOKENIZERS[name]
    words = discriminator_template("discriminator_v1")
    prompt = discriminator_prompt(tokenizer, words)
    pieces = (prompt.prefix[1:], prompt.between, prompt.suffix)
    read = "".join("".join(map(tokenizer.decode, piece)).replace("\u2581", " ") for piece in pieces)
    meant = f"{words.system}\n\n{words.user}\n".replace("{history}", "").replace("{candidate}", "")
    assert "".join(read.split()).casefold() == "".join(meant.split()).casefold()
    assert [tokenizer.decode([token]) for token in prompt.answers] in (["N", "Y"], ["n", "y"])


def test_the_blank_of_sentencepiece_is_not_put_into_a_sequence():
    for name in ("with a blank before", "without"):
        _, between, suffix = asked(TOKENIZERS[name])
        assert between == "Would this person also take the following item?\n"
        assert suffix == "\n "


@pytest.mark.parametrize(
    ("name", "end"),
    [("byte-level", "\n"), ("with a blank before", "\n"), ("without", "\n"), ("strips", "</s>"), ("lower case", "\n"),
     ("without a line feed", "</s>")],
)  # fmt: skip
def test_an_item_ends_with_a_line_feed_or_with_the_end_of_a_text(name, end):
    tokenizer = TOKENIZERS[name]
    assert tokenizer.decode([item_end(tokenizer)]) == end
    catalogue = tokenize_catalogue(["Toy", "Toys", "Toy Story"], tokenizer)
    assert [tokenizer.decode(catalogue.words(n)).strip().lower() for n in range(3)] == ["toy", "toys", "toy story"]
    assert {int(catalogue.item(n)[-1]) for n in range(3)} == {catalogue.end_id}


def test_items_that_a_tokenizer_makes_equal_are_named():
    with pytest.raises(BaseModelError, match=r"maps two items to the same ids \('(TOY|toy)', '(TOY|toy)'\)"):
        tokenize_catalogue(["TOY", "toy", "other"], TOKENIZERS["lower case"])


def test_without_line_feed_and_end_of_text_a_tokenizer_is_refused():
    with pytest.raises(BaseModelError, match="neither a line feed nor an end of text"):
        tokenize_catalogue(["a", "b"], character_tokenizer(feed=False, eos=False))


@pytest.mark.parametrize(
    ("letters", "read"),
    [("abcdefghijklmnopqrstuvwxyz", "<unk>"), ("".join(map(chr, range(33, 127))).replace("?", ""), "item<unk>")],
)
def test_a_tokenizer_without_the_words_is_refused(letters, read):
    with pytest.raises(BaseModelError, match="knows every word") as caught:
        discriminator_prompt(character_tokenizer(letters=letters), discriminator_template("discriminator_v1"))
    assert read in caught.value.found
    assert len(str(caught.value)) < 300


def test_the_answer_is_read_where_it_will_be_written():
    """In a chat it follows the generation prompt, outside a blank: together they are the tokens of the running text."""
    tokenizer = byte_tokenizer(FAMILIES["qwen-2"][0])
    prompt = discriminator_prompt(tokenizer, discriminator_template("discriminator_v1"))
    told = np.append(prompt.suffix, prompt.yes_id)
    assert tokenizer.decode(told).endswith("<|im_start|>assistant\nY")
