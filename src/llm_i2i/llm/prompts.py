"""Prompt templates and their token ids.

A template is a versioned YAML file. Its own words go through the model's chat template (where the model has
one); item texts never do: they are tokenized separately, with special tokens switched off, and spliced in as token
ids. So a hostile title (braces, role tokens, "No.1") changes nothing but its own text, and an item has the same
token ids wherever it stands.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar

import numpy as np
import yaml
from pydantic import ValidationError, field_validator

from llm_i2i.arrays import IntArray
from llm_i2i.errors import BaseModelError, ParamsError
from llm_i2i.files import file_sha256
from llm_i2i.params import Section

TEMPLATES = Path(__file__).parent / "templates"
# Private-use characters that mark the splice points while the chat template is rendered.
_HISTORY, _CANDIDATE, _USER = "\ue000", "\ue001", "\ue002"


class _Words(Section):
    """A prompt's words; `chat`: they go through the model's chat template, where it has one."""

    version: int
    chat: bool = True
    system: str
    user: str


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
    """Token ids of the generator's instruction; the list of items is the model's answer."""
    text = _render(tokenizer, template, template.user)
    return GeneratorPrompt(_encode(tokenizer, text, starts=not _in_chat(tokenizer, template)))


def discriminator_prompt(tokenizer: Any, template: DiscriminatorTemplate) -> DiscriminatorPrompt:
    """Token ids of the discriminator's question.

    Raises:
        BaseModelError: Yes and No begin with the same token, so their logits cannot be told apart.
    """
    user = template.user.replace("{history}", _HISTORY).replace("{candidate}", _CANDIDATE)
    in_chat = _in_chat(tokenizer, template)
    text = _render(tokenizer, template, user)
    before, rest = text.split(_HISTORY)
    between, after = rest.split(_CANDIDATE)
    # Outside a chat the answer follows a blank, as in running text.
    blank = "" if in_chat else " "
    yes, no = (_encode(tokenizer, blank + word) for word in (template.answer_yes, template.answer_no))
    shorter = min(len(yes), len(no))
    differ = np.flatnonzero(yes[:shorter] != no[:shorter])
    if len(differ) == 0:
        raise BaseModelError("tokenizer", f"cannot tell {template.answer_yes!r} from {template.answer_no!r} by a token")
    # The common beginning of both answers (a blank, for a byte tokenizer) belongs to the question.
    first = int(differ[0])
    suffix = np.concatenate([_encode(tokenizer, after), yes[:first]])
    return DiscriminatorPrompt(
        _encode(tokenizer, before, starts=not in_chat),
        _encode(tokenizer, between),
        suffix,
        yes_id=int(yes[first]),
        no_id=int(no[first]),
    )


def _in_chat(tokenizer: Any, template: _Words) -> bool:
    return template.chat and bool(tokenizer.chat_template)


def _render(tokenizer: Any, template: _Words, user: str) -> str:
    system = template.system
    if not _in_chat(tokenizer, template):
        return (f"{system}\n\n" if system else "") + (f"{user}\n" if user and template.chat else user)
    # The user text is inserted after rendering: some chat templates strip or reformat it.
    messages = [{"role": "system", "content": system}, {"role": "user", "content": _USER}]
    try:
        text = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    except Exception as error:  # jinja raises what the template says, e.g. "system role not supported"
        if "system" not in str(error).lower():
            raise BaseModelError("chat template", f"cannot be rendered ({error})") from error
        messages = [{"role": "user", "content": f"{system}\n\n{_USER}"}]
        text = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    return str(text).replace(_USER, user)


def _encode(tokenizer: Any, text: str, *, starts: bool = False) -> IntArray:
    """Token ids of a text; one that starts a sequence gets the start token that a chat template writes itself."""
    ids = tokenizer(text, add_special_tokens=False).input_ids
    if starts and tokenizer.bos_token_id is not None:
        ids = [tokenizer.bos_token_id, *ids]
    return np.asarray(ids, dtype=np.int64)
