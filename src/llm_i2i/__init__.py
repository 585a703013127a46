"""LLM-I2I: better training data for item-to-item recommenders, made by a large language model."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from llm_i2i.api import Held, SimilarItems, hold_out, measure, propose

__all__ = ["Held", "SimilarItems", "hold_out", "measure", "propose"]


def __getattr__(name: str) -> Any:
    """The Python API, imported where it is first used: the stages and the service do without it."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from llm_i2i import api  # noqa: PLC0415

    return getattr(api, name)
