"""One family of errors: each says where, what was found, what was expected and how to fix it."""

import errno
import inspect
import re
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

EXPLAINED = Path("docs/troubleshooting.md")
_RESERVE = 1 << 20  # bytes, given back where there are no others left to say so with


class LlmI2iError(Exception):
    """Base of every error this project raises on purpose.

    Args:
        where: File, table, parameter key or stage at fault.
        found: What is there, with counts and a first example.
        expected: The rule it breaks; may be empty if `found` says it.
        fix: What the user does next. One that names `dvc repro` is told in a project folder only: where the package
            is used as a library there is no such run.

    Attributes:
        entry: Where docs/troubleshooting.md explains it: the module that made it, such as `data-sources`.
    """

    def __init__(self, where: str, found: str, expected: str = "", fix: str = "") -> None:
        if "dvc repro" in fix and not Path("dvc.yaml").is_file():
            fix = ""
        self.where, self.found, self.expected, self.fix = where, found, expected, fix
        self.entry = entry_of(_calling_module())
        message = f"{where}: {found}"
        if expected:
            message += f"; expected {expected}"
        if fix:
            message += f"; {fix}"
        super().__init__(message.rstrip(".") + ".")


def _calling_module() -> str:
    """The module that makes an error, by the name it is imported by, also where it is run as a program."""
    frame = inspect.currentframe()
    while frame and frame.f_globals is globals() and frame.f_code.co_name not in ("needs_extra", "one_message"):
        frame = frame.f_back
    spec = frame.f_globals.get("__spec__") if frame else None
    return str(spec.name if spec else __name__)


class ParamsError(LlmI2iError):
    """params.yaml breaks one or more rules; all of them are listed at once."""


class DataError(LlmI2iError):
    """A raw table is missing, malformed or fails an expectation."""


class ArtifactError(LlmI2iError):
    """A stage's input artifact is missing or does not fit its schema."""


class WriteError(LlmI2iError):
    """A file cannot be written; what was there before still is."""


class BaseModelError(LlmI2iError):
    """The base LLM cannot be obtained or loaded."""


class TrainingError(LlmI2iError):
    """A training diverged: a loss, a gradient or what was trained is no finite number."""


class GenerationError(LlmI2iError):
    """No valid item can be generated, or no row is left after a filter."""


def entry_of(module: str) -> str:
    """The heading of docs/troubleshooting.md under which a module's messages stand, as in its address."""
    return "-".join(re.findall(r"[a-z0-9]+", module.removeprefix("llm_i2i.")))


def told(error: LlmI2iError) -> str:
    """An error as a command line prints it: the message and, in a project folder, where more is said of it."""
    return f"error: {error}" + (f" See {EXPLAINED}#{error.entry}" if EXPLAINED.is_file() else "") + "\n"


@contextmanager
def one_message(where: str) -> Iterator[None]:
    """Around a command: what the system refuses it, memory or a file, becomes one error of ours.

    A closed pipe is none, and a defect of this program keeps its traceback.

    Args:
        where: The command.

    Raises:
        LlmI2iError: The system refused.
    """
    reserve = bytearray()
    try:
        reserve = bytearray(_RESERVE)
        yield
    except BrokenPipeError:
        raise
    except (MemoryError, OSError, RuntimeError, SystemError) as error:
        reserve.clear()
        traceback.clear_frames(error.__traceback__)  # they hold what did not fit
        if _is_about_memory(error):
            said = next(iter(str(error).strip().splitlines()), "none left")
            expected = "room for the tables and the model"
            fix = "lower the batches (batch_tokens, batch_users) or give it more; what was there before still is"
            raise LlmI2iError(where, f"not enough memory ({said})", expected, fix) from error
        if not isinstance(error, OSError):
            raise
        place = where if error.filename is None else str(error.filename)
        expected = "a file, folder or connection that the system lets this program use"
        raise LlmI2iError(place, str(error.strerror or error), expected, "mend that and run again") from error


def _is_about_memory(error: Exception) -> bool:
    """Of Python and numpy, of the system, of torch on the CPU and on a GPU, or of a library that lost the reason."""
    if isinstance(error, OSError):
        return error.errno == errno.ENOMEM
    return isinstance(error, MemoryError) or any(
        words in f"{type(error).__name__}: {error}".lower()
        for words in (
            "outofmemory",
            "out of memory",
            "can't allocate memory",
            "can't start new thread",
            "error return without exception set",
            "without setting an exception",
        )
    )


@contextmanager
def needs_extra(extra: str, where: str) -> Iterator[None]:
    """Around imports of packages that only an extra of this project installs.

    Args:
        extra: A name of `optional-dependencies` in pyproject.toml.
        where: Command, function or address that needs it.

    Raises:
        LlmI2iError: A package is not installed.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        found, expected = f"package {error.name} is not installed", f"the packages of extra `{extra}`"
        raise LlmI2iError(where, found, expected, f"run `pip install 'llm-i2i[{extra}]'`") from error
