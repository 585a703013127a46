"""A prompt's words in a model's chat template, whatever that template makes of them.

Chat templates refuse a system role or skip it without a word, expect a message in parts, print it twice, trim or escape
it. So they never see our words: they render one private-use character for each message, and the words take its place
where it is found exactly once. Else the prompt is built another way.
"""

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

log = logging.getLogger(__name__)

# Private-use characters: where the history and the candidate go, and what a template renders for each message.
HISTORY, CANDIDATE, _SYSTEM, _USER = MARKS = "\ue000\ue001\ue002\ue003"
# Some templates print today's date: prompts would differ from day to day. This is the day that Llama 3 falls back to.
_NO_CLOCK: Final = (
    "{% macro strftime_now(format) %}{{ format"
    + "".join(
        f" | replace('%{letter}', '{value}')"
        for letter, value in {"-d": "26", "d": "26", "b": "Jul", "B": "July", "m": "07", "y": "24", "Y": "2024"}.items()
    )
    + " }}{% endmacro %}"
)


@dataclass(frozen=True)
class Rendered:
    """A prompt as text; `in_chat`: in the words of the model's chat template, start token included."""

    text: str
    in_chat: bool


def render(tokenizer: Any, *, system: str, user: str) -> Rendered | None:
    """The words in the model's chat template, each exactly once: None if it has no template, or no way that works.

    System words begin the user's turn where the template has no place of their own for them.

    Args:
        tokenizer: A Hugging Face tokenizer.
        system: May be empty.
        user: May be empty, and hold the marks of history and candidate.
    """
    if not tokenizer.chat_template:
        return None
    reason = ""
    for has_system, messages in _ways():
        words = {_SYSTEM: system, _USER: user} if has_system else {_USER: f"{system}\n\n{user}" if system else user}
        try:
            text = _apply(tokenizer, messages)
        except Exception as error:  # noqa: BLE001  # a template is a program of its own: it raises what it likes
            reason = reason or " ".join(str(error).split())[:200]
            continue
        counts = {mark: text.count(mark) for mark in MARKS}
        if counts != {mark: int(mark in words) for mark in MARKS} or text.find(_SYSTEM) > text.index(_USER):
            reason = reason or f"prints the system words {counts[_SYSTEM]} times, the user's {counts[_USER]} times"
            continue
        if not has_system and system:
            log.info("prompt: the chat template has no place for system words (%s): they begin the user's turn", reason)
        for mark, word in words.items():
            text = text.replace(mark, word)
        return Rendered(text, in_chat=True)
    log.warning("prompt: the chat template cannot be used (%s): the words stand outside of it", reason)
    return None


def _ways() -> Iterator[tuple[bool, list[dict[str, Any]]]]:
    """Messages that a template may accept, the best first, and whether system words have one of their own."""
    for has_system in (True, False):
        turns = [("system", _SYSTEM), ("user", _USER)] if has_system else [("user", _USER)]
        yield has_system, [{"role": role, "content": mark} for role, mark in turns]
        yield has_system, [{"role": role, "content": [{"type": "text", "text": mark}]} for role, mark in turns]


def _apply(tokenizer: Any, messages: list[dict[str, Any]]) -> str:
    template = tokenizer.get_chat_template()
    if "strftime_now" in template:
        template = _NO_CLOCK + template
    # Answers follow at once: a model that may think first is told not to.
    options = {"add_generation_prompt": True, "enable_thinking": False}
    return str(tokenizer.apply_chat_template(messages, chat_template=template, tokenize=False, **options))
