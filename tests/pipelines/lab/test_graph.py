"""The stage graph in the docs is what dvc itself says."""

import re

from llm_i2i.dvc import dvc
from llm_i2i.stages import STAGES
from pipelines.lab.graph import DOCUMENT, render, stage_needs


def closure(edges: set[tuple[str, str]]) -> set[tuple[str, str]]:
    """Every (need, stage) pair, direct or not."""
    while more := {(a, d) for a, b in edges for c, d in edges if b == c} - edges:
        edges = edges | more
    return edges


def test_the_committed_graph_is_dvcs() -> None:
    dag = dvc("dag", "--mermaid")
    text = DOCUMENT.read_text(encoding="utf-8")
    assert text == render(dag), "run `make graph`"
    names = {node: name.partition("@")[0] for node, name in re.findall(r'(node\d+)\["([^"]+)"\]', dag)}
    of_dvc = {(names[a], names[b]) for a, b in re.findall(r"(node\d+)-->(node\d+)", dag)}
    ours = set(re.findall(r"^    (\S+) --> (\S+)$", text, flags=re.MULTILINE))
    assert closure(ours) == closure(of_dvc)
    assert len(ours) < len(of_dvc)
    assert set(names.values()) == {*STAGES, "data.dvc"}


def test_implied_needs_and_matrices_are_left_out() -> None:
    dag = """flowchart TD
        node1["data.dvc"]\n node2["split"]\n node3["fuse@a"]\n node4["fuse@b"]\n node5["report"]
        node1-->node2\n node1-->node3\n node2-->node3\n node2-->node4\n node3-->node5\n node2-->node5"""
    assert stage_needs(dag) == {"data.dvc": set(), "split": {"data.dvc"}, "fuse": {"split"}, "report": {"fuse"}}
