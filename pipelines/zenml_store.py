"""How this project uses ZenML: a store of its own, offline, quiet, and started in half the usual time.

Call `prepare` before anything imports zenml. A variable that is already set in the environment wins, so
a ZenML server or another store is chosen the usual way.
"""

import functools
import logging
import os
import sysconfig
from collections.abc import Callable
from pathlib import Path
from typing import Any

from filelock import FileLock

from llm_i2i.files import remove
from steps.paths import LOCKS
from steps.stage import zenml_is_on

logger = logging.getLogger(__name__)

STORE = ".zenml-store"

# These integrations only teach ZenML to store arrays, tables and models; no step of this project returns
# one. Their activation imports torch and scikit-learn: four of the eight seconds of a small stage.
UNUSED_INTEGRATIONS = ("numpy", "pandas", "pillow", "pytorch", "scipy", "sklearn")


def prepare(root: Path) -> None:
    """Set ZenML's environment and, once per project folder, create its store.

    Args:
        root: The project folder.
    """
    # `dvc exp run --temp` works in a copy of the project and names the original: all share one store.
    home = Path(os.environ.get("DVC_ROOT", root)).resolve()
    environment = {
        "ZENML_ANALYTICS_OPT_IN": "false",
        # An absolute path: a relative one makes a store in every folder it is used from.
        "ZENML_CONFIG_PATH": str(home / STORE),
        "ZENML_CUSTOM_SOURCE_ROOT": str(root.resolve()),
        # Whatever fails in ZenML also raises, and is reported once by `python -m pipelines`.
        "ZENML_LOGGING_VERBOSITY": "CRITICAL",
        "ZENML_ENABLE_RICH_TRACEBACK": "false",
        "ZENML_DISABLE_STEP_LOGS_STORAGE": "true",
        "ZENML_DISABLE_PIPELINE_LOGS_STORAGE": "true",
    }
    for name, value in environment.items():
        os.environ.setdefault(name, value)
    if not zenml_is_on():
        return
    _start_faster()
    _quieten()
    _create_store(home / LOCKS)


def _quieten() -> None:
    """ZenML installs a root handler: let it show only warnings of other libraries."""
    for handler in logging.getLogger().handlers:
        handler.setLevel(logging.WARNING)
    logging.getLogger("zenml").setLevel(os.environ["ZENML_LOGGING_VERBOSITY"])


def _create_store(locks: Path) -> None:
    """Create the store under a lock: without it, one of two processes that create it at once would die.

    A store without the mark is one whose creation was killed, and ZenML never goes on with it: it is made anew. (Not
    beside its place and then renamed: ZenML writes the place into it.) One that the user names is left as it is.
    """
    store = Path(os.environ["ZENML_CONFIG_PATH"])
    ready = store / "ready"
    if ready.is_file():
        return
    locks.mkdir(parents=True, exist_ok=True)
    with FileLock(locks / "zenml-store.lock"):
        if ready.is_file():
            return
        if store.exists() and store == locks.parent / STORE:
            logger.warning("mended: %s was half made: it is made anew", store.name)
            remove(store)
        from zenml.client import Client  # noqa: PLC0415

        _ = Client().active_stack_model
        ready.touch()


def _start_faster() -> None:
    """Skip work that ZenML does at every start and this project does not need."""
    from zenml.environment import Environment  # noqa: PLC0415
    from zenml.integrations.registry import integration_registry  # noqa: PLC0415

    for name in UNUSED_INTEGRATIONS:
        integration_registry.integrations.pop(name, None)
    # ZenML records the installed packages by running `pip freeze` twice per run: most of a second each.
    Environment.get_python_packages = staticmethod(installed_packages)  # type: ignore[method-assign]


@functools.cache
def installed_packages() -> list[str]:
    """Installed packages as `name==version`, sorted: the names of their folders, no file is opened."""
    folders = Path(sysconfig.get_path("purelib")).glob("*.dist-info")
    return sorted("==".join(folder.stem.rsplit("-", 1)) for folder in folders)


def zenml_pipeline(body: Callable[..., None]) -> Callable[..., Any]:
    """Turn a function that calls steps into a ZenML pipeline; with ZenML off it stays a function.

    DVC decides what is stale: ZenML's cache is off, since it does not see that a file has changed.
    """
    if not zenml_is_on():
        return body
    from zenml import pipeline  # noqa: PLC0415
    from zenml.enums import ExecutionMode  # noqa: PLC0415

    # Fail fast: the step's own exception comes out, not "a step has failed".
    return pipeline(enable_cache=False, execution_mode=ExecutionMode.FAIL_FAST)(body)
