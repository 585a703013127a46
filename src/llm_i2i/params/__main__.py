"""`python -m llm_i2i.params`: write every option's explanation anew into params.yaml, profiles/ and docs/params.md."""

from pathlib import Path

import yaml

from llm_i2i.files import write_text
from llm_i2i.params.reading import PARAMS, read_profile, read_written
from llm_i2i.params.rendering import HEAD, head_of, reference, yaml_text

REFERENCE = Path("docs/params.md")


def texts() -> dict[Path, str]:
    """The files that hold explanations and what they should read; values stay as they are."""
    profiles = {path: path.read_text(encoding="utf-8") for path in sorted(Path("profiles").glob("*.yaml"))}
    found = {path: yaml_text(yaml.safe_load(text), head_of(text)) for path, text in profiles.items()}
    found[Path(PARAMS)] = yaml_text(read_written(), HEAD)
    found[REFERENCE] = reference(read_profile("laptop"))
    return found


if __name__ == "__main__":
    for path, text in texts().items():
        write_text(text, path)
