"""Whether a base model can be told what the trainings will tell it: asked in stage base_model, not hours later."""

from pathlib import Path

import numpy as np

from llm_i2i.errors import BaseModelError
from llm_i2i.llm.engine.models import load_tokenizer, prompt_length, text_config
from llm_i2i.llm.engine.trie import item_end
from llm_i2i.llm.prompts import discriminator_prompt, discriminator_template, generator_prompt, generator_template


def check_base_model(base_model: Path, *, generator: str, discriminator: str) -> None:
    """Build both prompts without any item.

    Args:
        base_model: Output folder of stage base_model.
        generator: Name of the generator's template.
        discriminator: Name of the discriminator's template.

    Raises:
        ParamsError: A template does not exist or is for the other task.
        BaseModelError: The tokenizer or the configuration cannot be loaded; the tokenizer does not know every word of
            a template, cannot tell Yes from No or has nothing to end an item with; or the model has no room for it.
    """
    tokenizer = load_tokenizer(base_model)
    asked = discriminator_prompt(tokenizer, discriminator_template(discriminator))
    told = {
        generator: generator_prompt(tokenizer, generator_template(generator)).prefix,
        discriminator: np.concatenate([asked.prefix, asked.between, asked.suffix, asked.answers]),
    }
    end, context, known = item_end(tokenizer), prompt_length(base_model), text_config(base_model).vocab_size
    for template, ids in told.items():
        if len(ids) >= context:
            raise BaseModelError(
                f"template {template}", f"has {len(ids)} tokens", f"fewer than the {context} that the base model reads"
            )
        if max(end, *ids) >= known:
            found = f"gives {template} the token id {max(end, *ids)}, but the model knows {known:,} tokens"
            raise BaseModelError("tokenizer", found, "the tokenizer of this very model", "choose another `base_model`")
