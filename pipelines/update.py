"""`python -m pipelines update`: a new day, or users who are to be forgotten, without a new training.

The day's tables are added to data/, then every stage runs but the trainings: what these have made stays, and the stages
take over what they computed last time, where everything that it depends on is the same (update.retrain_after, .kept/).
DVC goes on calling the trainings out of date: a plain `dvc repro` trains on all days, and so does every update after
`retrain_after` ones that did not.
"""

import logging
from pathlib import Path

from llm_i2i.data.days import change_tables
from llm_i2i.dvc import dvc, dvc_shown, graph, locked_md5, stage_outs
from llm_i2i.errors import ArtifactError
from llm_i2i.files import content_md5, read_json, write_json
from llm_i2i.params import load_params
from llm_i2i.stages import TRAININGS
from steps import paths

logger = logging.getLogger(__name__)
_TRACKED = Path("data.dvc")
_TRAINED = (paths.IDENTIFIERS, paths.BASE_MODEL, paths.GENERATOR, paths.DISCRIMINATOR)


def update(day: Path | None, remove: list[str]) -> None:
    """Change the raw tables, then bring all results up to date.

    Args:
        day: Folder with the new day's tables; its name is the day's. None = no new day.
        remove: Users whose interactions are deleted.

    Raises:
        DataError: The tables do not fit, the day is there already, or a user is unknown.
        ArtifactError: No training has run.
        LlmI2iError: A stage failed; data/ has changed then, and `update` without arguments goes on.
    """
    since, limit = _updates_since_training(), load_params().update.retrain_after
    if remove or day is not None:
        changes = change_tables(paths.DATA, day=day, remove=remove)
        logger.info("update: %d interactions and %d items more, %d interactions deleted", *changes)
    since += bool(remove) or day is not None
    write_json({"generator": locked_md5(paths.GENERATOR), "updates": since}, paths.UPDATES)
    if _TRACKED.exists():
        dvc("add", str(paths.DATA))
    if remove:
        _delete_leftovers()  # before the stages run: the report depends on the folders in which these lie
    if since > limit:
        logger.info("update: the %d. since the last training: the LLMs are trained again", since)
        dvc_shown("repro")
    else:
        stages = [stage for stage in graph() if stage.partition("@")[0] not in TRAININGS]
        dvc_shown("repro", "--single-item", *stages)


def _delete_leftovers() -> None:
    """Delete what arms and models that no longer run have left: it still holds the users who are gone."""
    stages = graph()
    outs = {Path(out) for stage in stages for out in stage_outs(stage)}
    for path in [path for path in paths.FUSED.parent.rglob("*") if path.is_file()]:
        if not outs & {path, *path.parents}:
            path.unlink()
    for path in paths.KEPT.glob("*.npz"):
        if path.stem not in stages:
            path.unlink()


def _updates_since_training() -> int:
    """How many updates have kept the LLMs that are there.

    Raises:
        ArtifactError: They are not there, or not those that dvc.lock names.
    """
    for path in _TRAINED:
        if not path.exists() or content_md5(path) != locked_md5(path):
            found = "is not what dvc.lock records" if path.exists() else "is not there"
            raise ArtifactError(str(path), found, "the result of a training", "run `dvc repro`, or `dvc pull`, first")
    told = read_json(paths.UPDATES) if paths.UPDATES.is_file() else {}
    return int(told["updates"]) if told.get("generator") == locked_md5(paths.GENERATOR) else 0
