"""An error says what to do where the reader can do it."""

import errno
import weakref

import numpy as np
import pandas as pd
import pytest

from llm_i2i.errors import ArtifactError, LlmI2iError, one_message
from llm_i2i.i2i import user_items_from_frame
from llm_i2i.i2i.index import from_index
from llm_i2i.schema import ITEMS, read_table


def advice(tmp_path) -> list[str]:
    items = pd.DataFrame({"item_id": ["a"]})
    found = []
    for act in (
        lambda: user_items_from_frame(pd.DataFrame({"user": []}), items),
        lambda: user_items_from_frame(pd.DataFrame({"user_id": ["u"], "item_id": ["b"]}), items),
        lambda: from_index(pd.DataFrame({"item_id": ["a"]}), items),
        lambda: read_table(tmp_path / "items.parquet", ITEMS),
    ):
        with pytest.raises(ArtifactError) as caught:
            act()
        found.append(str(caught.value))
    return found


def test_in_library_use_nothing_advises_a_run_of_dvc(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert not [message for message in advice(tmp_path) if "dvc" in message]
    (tmp_path / "dvc.yaml").touch()
    assert ["dvc repro" in message for message in advice(tmp_path)] == [False, False, False, True]


@pytest.mark.parametrize(
    ("raised", "message"),
    [
        (MemoryError(), "tag: not enough memory (none left); expected room"),
        (OSError(errno.ENOMEM, "Cannot allocate memory"), "tag: not enough memory ([Errno 12] Cannot"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried\nmore"), "you tried); expected room"),
        (RuntimeError("can't start new thread"), "tag: not enough memory (can't start new thread)"),
        (SystemError("error return without exception set"), "tag: not enough memory (error return"),
        (SystemError("<function f> returned NULL without setting an exception"), "tag: not enough memory (<function"),
        (PermissionError(errno.EACCES, "Permission denied", ".locks"), ".locks: Permission denied; expected a file"),
        (OSError(errno.EIO, "Input/output error"), "tag: Input/output error; expected"),
    ],
)
def test_what_the_system_refuses_is_one_message(raised, message):
    with pytest.raises(LlmI2iError) as caught, one_message("tag"):
        raise raised
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_what_did_not_fit_is_let_go_before_the_message_is_made(monkeypatch):
    """The message takes memory, too, and the traceback holds what filled it."""
    seen = []

    def fill():
        table = np.zeros(1)
        seen.append(weakref.ref(table))
        raise MemoryError

    monkeypatch.setattr("llm_i2i.errors.entry_of", lambda module: seen.append(seen[0]()) or module)
    with pytest.raises(LlmI2iError, match="not enough memory"), one_message("tag"):
        fill()
    assert seen[1:] == [None]


@pytest.mark.parametrize(
    "raised", [BrokenPipeError(), RuntimeError("a defect"), ValueError("x"), LlmI2iError("w", "f")]
)
def test_anything_else_passes(raised):
    with pytest.raises(type(raised)) as caught, one_message("tag"):
        raise raised
    assert caught.value is raised


def test_the_four_parts():
    assert str(LlmI2iError("w", "f.", "e", "x")) == "w: f.; expected e; x."
    assert str(LlmI2iError("w", "f")) == "w: f."
