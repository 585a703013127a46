"""Sign what is promoted: the index with all that is served beside it, and each adapter."""

import logging
from collections.abc import Mapping
from pathlib import Path

from llm_i2i import registry, signing
from llm_i2i.dvc import Revision
from llm_i2i.errors import ArtifactError
from llm_i2i.files import content_md5, write_text
from llm_i2i.serving.build import parts, signature_of
from steps.paths import I2I

logger = logging.getLogger(__name__)


def sign(version: registry.Version, key: Path) -> None:
    """Sign each model of a version, as the DVC cache has it; a signature is a git tag, an index's a file as well.

    Raises:
        ArtifactError: The cache lacks an object, or it is damaged.
        LlmI2iError: The key cannot be used.
    """
    for model, facts in registry.models().items():
        run, files = _signed(model, version.commit, facts.get("path", ""))
        if not files:
            logger.warning("promote: %s %s is no output of this commit, so it is not signed", model, version.name)
            continue
        with signing.copied(run, files) as folder:
            text = signing.sign(folder, key)
        registry.keep_signature(model, version, text)
        if run != model and (I2I / run).is_dir():
            write_text(text + "\n", signature_of(I2I / run))
        logger.info("promote: %s %s is signed, %d files", model, version.name, len(files))


def check(model: str, version: registry.Version, path: str, key: Path) -> None:
    """Whether a promoted model is what was signed.

    Args:
        model: As dvc.yaml names it.
        version: Of the model.
        path: Its output.
        key: Public key.

    Raises:
        ArtifactError: It is not, or the cache lacks it.
    """
    name, files = _signed(model, version.commit, path)
    with signing.copied(name, files) as folder:
        signing.check(folder, registry.signature(model, version.name), key, where=f"{model} {version.name}")


def _signed(model: str, commit: str, path: str) -> tuple[str, dict[str, Path]]:
    """What is signed of a model: its files, and the name of their folder, for the index that of its run."""
    revision = Revision(commit)
    if model != next(iter(registry.models())):
        return model, whole(revision, path)
    run = registry.run_at(commit)
    return run, served(revision, run)


def served(revision: Revision, run: str) -> dict[str, Path]:
    """Where the cache holds what is served, by path in folder artifacts."""
    paths = {name: f"artifacts/{name}" for name in parts(run)}
    return _sound({name: revision.output(path) for name, path in paths.items() if revision.has(path)})


def whole(revision: Revision, path: str) -> dict[str, Path]:
    """Where the cache holds the files of an output that is a folder, by path in it."""
    return _sound({name: revision.output(f"{path}/{name}") for name in revision.names(path)})


def _sound(files: Mapping[str, Path]) -> dict[str, Path]:
    """Files of the cache whose content is their name."""
    for name, path in files.items():
        if content_md5(path) != path.parent.name + path.name:
            raise ArtifactError(f"{path} ({name})", "is damaged: its content is not its name", fix="run `dvc pull`")
    return dict(files)
