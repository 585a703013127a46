"""Prompt templates and their token ids.

A template is a versioned YAML file. Its own words go through the model's chat template (where the model has
one); item texts never do: they are tokenized apart, with special tokens switched off, and spliced in as token
ids. So a hostile title (braces, role tokens, "No.1") changes nothing but its own text, and an item has the same
token ids wherever it stands.
"""

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import numpy.typing as npt
import yaml
from pydantic import Field, TypeAdapter, ValidationError, field_validator

from llm_i2i.errors import BaseModelError, ParamsError
from llm_i2i.params import Section

TEMPLATES = Path(__file__).parent / "templates"
# Private-use characters: they stand for the splice points while the chat template is rendered.
_HISTORY, _CANDIDATE, _USER = "\ue000", "\ue001", "\ue002"

TokenIds = npt.NDArray[np.int64]


class GeneratorTemplate(Section):
    """Words around a list of items that the model continues."""

    task: Literal["generator"]
    version: int
    system: str
    user: str


class DiscriminatorTemplate(Section):
    """Words around a history and one candidate; `user` holds {history} and then {candidate}, each once.

    Every history item ends with a line feed of its own.
    """

    task: Literal["discriminator"]
    version: int
    system: str
    user: str
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


Template = Annotated[GeneratorTemplate | DiscriminatorTemplate, Field(discriminator="task")]


def load_template(name: str, task: str) -> tuple[GeneratorTemplate | DiscriminatorTemplate, str]:
    """Read a template by name.

    Args:
        name: File name without ending, e.g. `generator_v1`.
        task: `generator` or `discriminator`, which it must be for.

    Returns:
        The template and the SHA-256 of its file's bytes.

    Raises:
        ParamsError: There is no such template, or it breaks the schema.
    """
    path = TEMPLATES / f"{name}.yaml"
    names = sorted(p.stem for p in TEMPLATES.glob(f"{task}_*.yaml"))
    if not path.is_file():
        raise ParamsError(f"train_{task}.template", f"no template {name!r}", f"one of {names}")
    content = path.read_bytes()
    try:
        template: GeneratorTemplate | DiscriminatorTemplate = TypeAdapter(Template).validate_python(
            yaml.safe_load(content)
        )
    except (ValidationError, yaml.YAMLError) as error:
        raise ParamsError(str(path), f"breaks the template schema ({error})") from error
    if template.task != task:
        raise ParamsError(f"train_{task}.template", f"{name!r} is for the {template.task}", f"one of {names}")
    return template, hashlib.sha256(content).hexdigest()


@dataclass(frozen=True)
class GeneratorPrompt:
    """Token ids before the first item, int64 (n_tokens,). Items follow, each ended by `Catalogue.end_id`."""

    prefix: TokenIds


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

    prefix: TokenIds
    between: TokenIds
    suffix: TokenIds
    yes_id: int
    no_id: int


def generator_prompt(tokenizer: Any, template: GeneratorTemplate) -> GeneratorPrompt:
    """Token ids of the generator's instruction: the list itself is the model's answer."""
    return GeneratorPrompt(_encode(tokenizer, _render(tokenizer, template.system, template.user), first=True))


def discriminator_prompt(tokenizer: Any, template: DiscriminatorTemplate) -> DiscriminatorPrompt:
    """Token ids of the discriminator's question.

    Raises:
        BaseModelError: Yes and No begin with the same token, so their logits cannot be told apart.
    """
    user = template.user.replace("{history}", _HISTORY).replace("{candidate}", _CANDIDATE)
    text = _render(tokenizer, template.system, user)
    before, rest = text.split(_HISTORY)
    between, after = rest.split(_CANDIDATE)
    # Without a chat template the answer follows a blank, as in running text.
    blank = "" if tokenizer.chat_template else " "
    yes, no = (_encode(tokenizer, blank + word) for word in (template.answer_yes, template.answer_no))
    shorter = min(len(yes), len(no))
    differ = np.flatnonzero(yes[:shorter] != no[:shorter])
    if len(differ) == 0:
        raise BaseModelError(
            "tokenizer", f"cannot tell {template.answer_yes!r} from {template.answer_no!r} by a token"
        )
    # What both answers begin with (a blank, for a byte tokenizer) belongs to the question.
    first = int(differ[0])
    suffix = np.concatenate([_encode(tokenizer, after), yes[:first]])
    return DiscriminatorPrompt(
        _encode(tokenizer, before, first=True),
        _encode(tokenizer, between),
        suffix,
        yes_id=int(yes[first]),
        no_id=int(no[first]),
    )


def _render(tokenizer: Any, system: str, user: str) -> str:
    if not tokenizer.chat_template:
        return (f"{system}\n\n" if system else "") + (f"{user}\n" if user else "")
    # The user text is put in after rendering: some chat templates strip or reformat what they are given.
    messages = [{"role": "system", "content": system}, {"role": "user", "content": _USER}]
    try:
        text = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    except Exception as error:  # jinja raises what the template says, e.g. "system role not supported"
        if "system" not in str(error).lower():
            raise BaseModelError("chat template", f"cannot be rendered ({error})") from error
        messages = [{"role": "user", "content": f"{system}\n\n{_USER}"}]
        text = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    return str(text).replace(_USER, user)


def _encode(tokenizer: Any, text: str, *, first: bool = False) -> TokenIds:
    ids = tokenizer(text, add_special_tokens=False).input_ids
    # A chat template writes its own start token; running text needs the tokenizer's.
    if first and not tokenizer.chat_template and tokenizer.bos_token_id is not None:
        ids = [tokenizer.bos_token_id, *ids]
    return np.asarray(ids, dtype=np.int64)
