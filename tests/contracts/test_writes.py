"""One module writes files: llm_i2i/files.py. What else opens one for writing is named here, with its reason."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import ROOT

SOURCES = [path for room in ("src", "steps", "pipelines") for path in sorted((ROOT / room).rglob("*.py"))]
HOME = "src/llm_i2i/files.py"
# Methods and functions that write to a path or give it another name, whatever they belong to.
WRITERS = {
    "write_text", "write_bytes", "touch", "rename", "renames", "symlink_to", "hardlink_to", "link", "symlink",
    "to_parquet", "to_csv", "to_json", "to_pickle", "savez", "savez_compressed", "savetxt", "tofile",
    "save_pretrained", "save_file", "dump", "copy", "copy2", "copyfile", "copytree", "move",
    "mkstemp", "NamedTemporaryFile", "savefig", "urlretrieve", "extractall", "extract",
}  # fmt: skip
MODULES = {"os", "io", "shutil", "json", "pickle", "yaml", "gzip", "codecs"}
OF_MODULES = {("np", "save"), ("numpy", "save"), ("torch", "save"), ("os", "replace"), ("os", "open"), ("os", "write")}
EXCEPTIONS = {
    ("src/llm_i2i/cli.py", "open"): "the null device, for a reader that has closed its end",
    ("src/llm_i2i/data/download.py", "open"): "a resumed download grows in place, under a name of its own until whole",
    ("src/llm_i2i/data/wheels.py", "open"): "a member of a wheel, into the path that `staged` gave",
    ("src/llm_i2i/i2i/export.py", "open"): "line by line into the path that `staged` gave",
    ("src/llm_i2i/i2i/patch.py", "open"): "into the path that `staged` gave",
    ("src/llm_i2i/i2i/patch.py", "savez"): "into the file that `staged` gave",
    ("src/llm_i2i/i2i/export.py", "rename"): "a key of Redis",
    ("src/llm_i2i/llm/engine/shards.py", "open"): "into the path that `staged` gave",
    ("src/llm_i2i/llm/engine/shards.py", "savez"): "into the file that `staged` gave",
    ("src/llm_i2i/llm/engine/checkpoints.py", "open"): "into the path that `staged` gave",
    ("src/llm_i2i/llm/engine/checkpoints.py", "save"): "into the file that `staged` gave",
    ("src/llm_i2i/serving/arms.py", "touch"): "an empty mark: its name is all",
    ("src/llm_i2i/serving/events.py", "open"): "an event log grows in place, each line flushed before it is answered",
    ("src/llm_i2i/serving/events.py", "write"): "as above",
    ("src/llm_i2i/schema.py", "to_csv"): "into the file that `staged_text` gave",
    ("src/llm_i2i/reporting/svg.py", "savefig"): "into memory",
    ("steps/parts.py", "open"): "the null device",
    ("steps/materializer.py", "open"): "in ZenML's artifact store, through ZenML",
    ("pipelines/lab/sweep.py", "open"): "a lock, and the log that a running dvc writes",
    ("pipelines/mend.py", "open"): "DVC's own lock, to hold it",
    ("pipelines/zenml_store.py", "touch"): "an empty mark: its name is all",
}


def writes(tree: ast.AST) -> Iterator[tuple[str, int]]:
    """Calls that write a file or rename one: name and line."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and (name := _writer(node)):
            yield name, node.lineno


def _writer(call: ast.Call) -> str:
    """Name of the function if it writes; else nothing."""
    function, named = call.func, {keyword.arg for keyword in call.keywords}
    if isinstance(function, ast.Name):
        return "open" if function.id == "open" and _for_writing(call, place=1) else ""
    if not isinstance(function, ast.Attribute):
        return ""
    name, owner = function.attr, function.value.id if isinstance(function.value, ast.Name) else ""
    if name in ("open", "fdopen"):
        return "open" if _for_writing(call, place=1 if owner in MODULES else 0) else ""
    if name in ("copy", "dump"):
        return name if owner in MODULES else ""
    is_path = name == "replace" and len(call.args) == 1 and not named  # a text's takes two
    is_table = name == "rename" and named & {"columns", "index"}
    return name if (owner, name) in OF_MODULES or is_path or (name in WRITERS and not is_table) else ""


def _for_writing(call: ast.Call, place: int) -> bool:
    """Whether `open` is given a mode that is not plainly one of reading."""
    given = [keyword.value for keyword in call.keywords if keyword.arg == "mode"] + call.args[place : place + 1]
    return any(not isinstance(mode, ast.Constant) or set(str(mode.value)) & set("wax+") for mode in given)


def found(path: Path) -> list[tuple[str, int]]:
    return sorted(writes(ast.parse(path.read_text(encoding="utf-8"))), key=lambda call: call[1])


def test_only_files_py_writes():
    seen = set()
    for path in SOURCES:
        name = path.relative_to(ROOT).as_posix()
        if name == HOME:
            continue
        for call, line in found(path):
            assert (name, call) in EXCEPTIONS, f"{name}:{line} calls {call}: write through llm_i2i.files"
            seen.add((name, call))
    assert seen == set(EXCEPTIONS), "an exception that is no longer used"


@pytest.mark.parametrize(
    "code",
    ["open(p, 'w')", "open(p, mode='ab')", "p.open('x')", "p.open(mode)", "p.write_text(t)", "p.rename(q)",
     "p.replace(q)", "os.replace(p, q)", "np.save(p, a)", "torch.save(s, p)", "t.to_parquet(p)",
     "shutil.copyfile(p, q)", "io.open(p, 'r+')", "json.dump(a, f)", "model.save_pretrained(p)"],
)  # fmt: skip
def test_every_way_to_write_is_seen(code):
    assert list(writes(ast.parse(code)))


@pytest.mark.parametrize(
    "code",
    ["open(p)", "open(p, 'rb')", "p.open(encoding='utf-8')", "text.replace(a, b)", "frame.copy()", "json.dumps(a)",
     "params.model_dump()", "frame.rename(columns=a)"],
)  # fmt: skip
def test_reading_is_not(code):
    assert not list(writes(ast.parse(code)))
