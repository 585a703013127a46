"""Prompt templates and their token ids.

A template is a versioned YAML file. Its own words go through the model's chat template (where the model has
one); item texts never do: they are tokenized separately, with special tokens switched off, and spliced in as token
ids. So a hostile title (braces, role tokens, "No.1") changes nothing but its own text, and an item has the same
token ids wherever it stands.
"""

import unicodedata
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar

import numpy as np
import yaml
from pydantic import ValidationError, field_validator

from llm_i2i.arrays import IntArray
from llm_i2i.errors import BaseModelError, ParamsError
from llm_i2i.files import file_sha256
from llm_i2i.llm import chat
from llm_i2i.params import Section

TEMPLATES = Path(__file__).parent / "templates"


class _Words(Section):
    """A prompt's words; `chat`: they go through the model's chat template, where it has one."""

    version: int
    chat: bool = True
    system: str
    user: str

    @field_validator("system", "user")
    @classmethod
    def _has_no_mark(cls, value: str) -> str:
        if set(value) & set(chat.MARKS):
            raise ValueError("must not hold the private-use characters U+E000 to U+E003")
        return value


class GeneratorTemplate(_Words):
    """Words around a list of items that the model continues."""

    task: Literal["generator"]


class DiscriminatorTemplate(_Words):
    """Words around a history and one candidate; `user` holds {history} and then {candidate}, each once.

    Every history item ends with a line feed of its own.
    """

    task: Literal["discriminator"]
    answer_yes: str
    answer_no: str

    @field_validator("user")
    @classmethod
    def _has_both_slots(cls, value: str) -> str:
        if value.count("{history}") != 1 or value.count("{candidate}") != 1:
            raise ValueError("must hold {history} and {candidate} once each")
        if value.index("{history}") > value.index("{candidate}"):
            raise ValueError("{history} must come before {candidate}: the encoded history is shared")
        return value


Template = TypeVar("Template", GeneratorTemplate, DiscriminatorTemplate)


def generator_template(name: str) -> GeneratorTemplate:
    """Read a generator's template, e.g. `generator_v1`; errors as of `_load`."""
    return _load(name, "generator", GeneratorTemplate)


def discriminator_template(name: str) -> DiscriminatorTemplate:
    """Read a discriminator's template, e.g. `discriminator_v1`; errors as of `_load`."""
    return _load(name, "discriminator", DiscriminatorTemplate)


def template_sha256(name: str) -> str:
    """SHA-256 of a template's file; ParamsError if there is none."""
    return file_sha256(_path(name))


def _load(name: str, task: str, kind: type[Template]) -> Template:
    """Read a template.

    Raises:
        ParamsError: There is no such template, it is for the other task, or it breaks the schema.
    """
    path = _path(name)
    try:
        content = yaml.safe_load(path.read_bytes())
        found = content.get("task", task) if isinstance(content, dict) else task
        if found != task:
            names = sorted(p.stem for p in TEMPLATES.glob(f"{task}_*.yaml"))
            raise ParamsError(f"train_{task}.template", f"{name!r} is for the {found}", f"one of {names}")
        return kind.model_validate(content)
    except (ValidationError, yaml.YAMLError) as error:
        raise ParamsError(str(path), f"breaks the template schema ({error})") from error


def _path(name: str) -> Path:
    path = TEMPLATES / f"{name}.yaml"
    if not path.is_file():
        names = sorted(p.stem for p in TEMPLATES.glob("*.yaml"))
        raise ParamsError("template", f"no template {name!r}", f"one of {names}")
    return path


def recent_that_fit(history: IntArray, lengths: IntArray, room: int) -> IntArray:
    """The longest end of a history whose tokens fit: the oldest items are left out first, no item is cut.

    Args:
        history: Item indices in time order.
        lengths: int64 (n_items,): tokens per item.
        room: Tokens available for the history; below 0 is the same as 0.
    """
    fits = np.cumsum(lengths[history][::-1]) <= room
    return history[len(history) - int(fits.sum()) :]


@dataclass(frozen=True)
class GeneratorPrompt:
    """Token ids before the first item, int64 (n_tokens,). Items follow, each ended by `Catalogue.end_id`."""

    prefix: IntArray


@dataclass(frozen=True)
class DiscriminatorPrompt:
    """Token ids around history and candidate.

    Attributes:
        prefix: Before the history, int64 (n_tokens,).
        between: After the history, before the candidate.
        suffix: After the candidate; the answer is the next token.
        yes_id: Token id that answers Yes.
        no_id: Token id that answers No.
    """

    prefix: IntArray
    between: IntArray
    suffix: IntArray
    yes_id: int
    no_id: int

    @property
    def answers(self) -> tuple[int, int]:
        """Token ids of the classes NO and YES, in this order."""
        return self.no_id, self.yes_id


def generator_prompt(tokenizer: Any, template: GeneratorTemplate) -> GeneratorPrompt:
    """Token ids of the generator's instruction; the list of items is the model's answer.

    Raises:
        BaseModelError: The tokenizer does not know the template's words.
    """
    rendered = _render(tokenizer, template, template.user)
    return GeneratorPrompt(_beginning(tokenizer, rendered.text, in_chat=rendered.in_chat))


def discriminator_prompt(tokenizer: Any, template: DiscriminatorTemplate) -> DiscriminatorPrompt:
    """Token ids of the discriminator's question.

    Raises:
        BaseModelError: The tokenizer does not know the template's words, or Yes and No begin with the same token, so
            that their logits cannot be told apart.
    """
    user = template.user.replace("{history}", chat.HISTORY).replace("{candidate}", chat.CANDIDATE)
    rendered = _render(tokenizer, template, user)
    before, rest = rendered.text.split(chat.HISTORY)
    between, after = rest.split(chat.CANDIDATE)
    # Outside a chat the answer follows a blank, as in running text.
    blank = "" if rendered.in_chat else " "
    yes, no = (_inside(tokenizer, after + blank + word) for word in (template.answer_yes, template.answer_no))
    shorter = min(len(yes), len(no))
    differ = np.flatnonzero(yes[:shorter] != no[:shorter])
    if len(differ) == 0:
        raise BaseModelError("tokenizer", f"cannot tell {template.answer_yes!r} from {template.answer_no!r} by a token")
    # The common beginning of both answers (a blank, for a byte tokenizer) belongs to the question.
    first = int(differ[0])
    return DiscriminatorPrompt(
        _beginning(tokenizer, before, in_chat=rendered.in_chat),
        _inside(tokenizer, between),
        suffix=yes[:first],
        yes_id=int(yes[first]),
        no_id=int(no[first]),
    )


def _render(tokenizer: Any, template: _Words, user: str) -> chat.Rendered:
    system = template.system
    rendered = chat.render(tokenizer, system=system, user=user) if template.chat else None
    if rendered is not None:
        return rendered
    text = (f"{system}\n\n" if system else "") + (f"{user}\n" if user and template.chat else user)
    return chat.Rendered(text, in_chat=False)


def _beginning(tokenizer: Any, text: str, *, in_chat: bool) -> IntArray:
    """Token ids of what starts a sequence, with the start token, which a chat template writes itself."""
    ids = _encode(tokenizer, text)
    if not in_chat and tokenizer.bos_token_id is not None:
        ids = [tokenizer.bos_token_id, *ids]
    return np.asarray(ids, dtype=np.int64)


def _inside(tokenizer: Any, text: str) -> IntArray:
    """Token ids of what stands inside a sequence: without the blank that SentencePiece puts before a text."""
    feed = tokenizer("\n", add_special_tokens=False).input_ids
    ids = _encode(tokenizer, text)
    if len(feed) > 1:
        after_feed = tokenizer(f"\n{text}", add_special_tokens=False).input_ids
        ids = after_feed[len(feed) :] if after_feed[: len(feed)] == feed else ids
    return np.asarray(ids, dtype=np.int64)


def _encode(tokenizer: Any, text: str) -> list[int]:
    """Token ids of a text, all of whose words are still there.

    Raises:
        BaseModelError: The tokenizer reads other words, or unknown ones.
    """
    ids: list[int] = tokenizer(text, add_special_tokens=False).input_ids
    read = tokenizer.decode(ids, skip_special_tokens=False, clean_up_tokenization_spaces=False)
    meant, found = _letters(text), _letters(read)
    if meant != found:
        at = next((n for n, (a, b) in enumerate(zip(meant, found, strict=False)) if a != b), len(found))
        raise BaseModelError(
            "tokenizer",
            f"reads {meant[max(0, at - 20) : at + 20]!r} as {found[max(0, at - 20) : at + 20]!r}",
            "a tokenizer that knows every word of the prompt's template",
            "choose another `base_model`, or a `template` in words that it knows",
        )
    return ids


def _letters(text: str) -> str:
    """What of a text a tokenizer must keep: not its case, accents, blanks and forms of the same letter."""
    plain = unicodedata.normalize("NFKD", text.casefold())
    return "".join(c for c in plain if c != "\u2581" and unicodedata.category(c)[0] not in "CMZ")
