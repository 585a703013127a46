"""Which core modules a step runs through."""

import ast
from pathlib import Path

from tests.conftest import ROOT

EVERYONES = {f"llm_i2i.{name}" for name in ("arrays", "errors", "files", "schema")} | {
    f"llm_i2i.params.{path.stem}" for path in (ROOT / "src/llm_i2i/params").glob("*.py")
}
EVERYONES |= {"llm_i2i.params"}
EVERYONES -= {"llm_i2i.params.selection"}  # its presets decide which pairs are kept


def core_files(step: str) -> set[str]:
    """Files of the core that a step imports, directly or not, without those that are everyone's.

    A name that a package's __init__ passes on counts as the module that defines it.
    """
    seen: set[str] = set()
    waiting = [f"steps.{step}"]
    while waiting:
        new = _imported_by(waiting.pop()) - EVERYONES - seen
        seen |= new
        waiting += new
    return {_file(module).relative_to(ROOT).as_posix() for module in seen}


def _imported_by(module: str) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(_file(module).read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "llm_i2i":
            found |= {_defining(node.module, name.name) for name in node.names}
        elif isinstance(node, ast.Import):
            found |= {name.name for name in node.names if name.name.split(".")[0] == "llm_i2i"}
    return found


def _defining(module: str, name: str) -> str:
    if _exists(f"{module}.{name}"):
        return f"{module}.{name}"
    if _file(module).name == "__init__.py":
        for node in ast.walk(ast.parse(_file(module).read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and name in {a.asname or a.name for a in node.names}:
                return _defining(node.module, name)
    return module


def _candidates(module: str) -> list[Path]:
    path = Path(*module.split("."))
    return [base / end for base in (ROOT / "src", ROOT) for end in (path.with_suffix(".py"), path / "__init__.py")]


def _exists(module: str) -> bool:
    return any(path.is_file() for path in _candidates(module))


def _file(module: str) -> Path:
    return next(path for path in _candidates(module) if path.is_file())
