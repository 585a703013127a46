"""`make graph`: write docs/stage-graph.md, the stages of dvc.yaml as a Mermaid graph made from `dvc dag`."""

import re
from graphlib import TopologicalSorter
from pathlib import Path

from llm_i2i.dvc import dvc
from llm_i2i.files import write_text
from llm_i2i.stages import STAGES

DOCUMENT = Path("docs/stage-graph.md")


def stage_needs(dag: str) -> dict[str, set[str]]:
    """The stages that each stage needs directly; the combinations of a matrix are one stage.

    Args:
        dag: What `dvc dag --mermaid` prints: each combination of a matrix as a node of its own.

    Returns:
        By stage (or tracked input such as data.dvc): what it needs, without what another of its needs implies.
    """
    nodes = dict(re.findall(r'(node\d+)\["([^"@]+)', dag))
    needs: dict[str, set[str]] = {name: set() for name in nodes.values()}
    for one, other in re.findall(r"(node\d+)-->(node\d+)", dag):
        needs[nodes[other]].add(nodes[one])
    implied: dict[str, set[str]] = {}  # all that a stage needs, directly or not
    for name in TopologicalSorter(needs).static_order():
        implied[name] = needs[name].union(*(implied[need] for need in needs[name]))
    return {
        name: {need for need in direct if not any(need in implied[other] for other in direct)}
        for name, direct in needs.items()
    }


def render(dag: str) -> str:
    """The document; argument as of `stage_needs`."""
    needs = stage_needs(dag)
    order = [*sorted(needs.keys() - STAGES.keys()), *(name for name in STAGES if name in needs)]
    labels = {name: f"{name}<br>for each {', '.join(STAGES[name])}" for name in order if STAGES.get(name)}
    lines = [f'    {name}["{labels.get(name, name)}"]' for name in order]
    lines += [f"    {need} --> {name}" for name in order for need in order if need in needs[name]]
    return (
        "# Stages\n\nMade by `make graph` from `dvc dag`. An arrow means: needs the output of. Arrows that "
        "others imply are left out.\n\n```mermaid\nflowchart TD\n" + "\n".join(lines) + "\n```\n"
    )


if __name__ == "__main__":
    write_text(render(dvc("dag", "--mermaid")), DOCUMENT)
