import numpy as np
import pytest

from llm_i2i.errors import BaseModelError, ParamsError
from llm_i2i.llm.prompts import (
    TEMPLATES,
    DiscriminatorTemplate,
    discriminator_prompt,
    discriminator_template,
    generator_prompt,
    generator_template,
    template_sha256,
)

CHAT = (
    "{% for m in messages %}<s>{{ m['role'] }}\n{{ m['content'] | trim }}</s>\n{% endfor %}"
    "{% if add_generation_prompt %}<s>assistant\n{% endif %}"
)
NO_SYSTEM = (
    "{% if messages[0]['role'] == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}" + CHAT
)


@pytest.mark.parametrize("name", sorted(p.stem for p in TEMPLATES.glob("*.yaml")))
def test_every_shipped_template_is_valid(name):
    load = {"generator": generator_template, "discriminator": discriminator_template}[name.split("_")[0]]
    template = load(name)
    assert len(template_sha256(name)) == 64
    assert name.endswith(f"v{template.version}")


def test_at_least_two_variants_of_each():
    assert len(list(TEMPLATES.glob("generator_*"))) >= 2
    assert len(list(TEMPLATES.glob("discriminator_*"))) >= 2


def test_unknown_template_lists_the_known_ones():
    with pytest.raises(ParamsError, match="generator_v1"):
        generator_template("generator_v9")
    with pytest.raises(ParamsError, match="for the discriminator"):
        generator_template("discriminator_v1")


def test_pieces_without_chat_template(tokenizer):
    template = discriminator_template("discriminator_v1")
    prompt = discriminator_prompt(tokenizer, template)
    assert prompt.prefix[0] == tokenizer.bos_token_id
    # A byte tokenizer's " Yes" and " No" share the blank: it ends the question, the letters answer.
    assert tokenizer.decode([prompt.yes_id]) == "Y"
    assert tokenizer.decode([prompt.no_id]) == "N"
    assert tokenizer.decode(prompt.suffix).endswith(" ")


@pytest.mark.parametrize("chat", [CHAT, NO_SYSTEM])
def test_pieces_with_chat_template(tokenizer, chat):
    tokenizer = type(tokenizer).from_pretrained(tokenizer.name_or_path)
    tokenizer.chat_template = chat
    template = discriminator_template("discriminator_v1")
    prompt = discriminator_prompt(tokenizer, template)
    whole = tokenizer.decode(np.concatenate([prompt.prefix, prompt.between, prompt.suffix]))
    assert template.system in whole
    assert "\ue000" not in whole
    assert "\ue001" not in whole
    assert whole.endswith("<s>assistant\n")
    assert tokenizer.decode(prompt.prefix).endswith("oldest first:\n")
    generator = generator_template("generator_v1")
    assert tokenizer.decode(generator_prompt(tokenizer, generator).prefix).endswith("<s>assistant\n")


def test_a_bare_template_stays_outside_the_chat(tokenizer):
    tokenizer = type(tokenizer).from_pretrained(tokenizer.name_or_path)
    tokenizer.chat_template = CHAT
    assert generator_prompt(tokenizer, generator_template("generator_bare_v1")).prefix.tolist() == [
        tokenizer.bos_token_id
    ]
    prompt = discriminator_prompt(tokenizer, discriminator_template("discriminator_bare_v1"))
    assert prompt.prefix.tolist() == [tokenizer.bos_token_id]
    assert tokenizer.decode(prompt.between) == "Next?\n"
    assert tokenizer.decode(prompt.suffix) == ": ", "the blank that both answers begin with"
    in_chat = generator_prompt(tokenizer, generator_template("generator_v1")).prefix
    assert "assistant" in tokenizer.decode(in_chat)


def test_answers_that_begin_alike_are_an_error(tokenizer):
    template = DiscriminatorTemplate(
        task="discriminator", version=1, system="s", user="{history}{candidate}", answer_yes="Y", answer_no="Yn"
    )
    with pytest.raises(BaseModelError, match="cannot tell"):
        discriminator_prompt(tokenizer, template)
