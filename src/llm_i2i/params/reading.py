"""Read what runs: the I2I models' options and a profile, overlaid by params.yaml; then check all of it at once."""

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import yaml
from pydantic import ValidationError

from llm_i2i.errors import ParamsError
from llm_i2i.params.root import Params

PARAMS: Final = "params.yaml"
MODELS: Final = "profiles/models.yaml"
Tree = dict[str, Any]


def profile_file(name: str) -> str:
    """Path of a profile, relative to the project folder."""
    return f"profiles/{name}.yaml"


def load_params(path: Path = Path(PARAMS)) -> Params:
    """Read params.yaml and the profile that it names (profiles/ lies beside it), and check the whole.

    Raises:
        ParamsError: A file is missing or no YAML mapping, or any key or value breaks a rule; every broken rule is
            listed with its key, its file and the value received.
    """
    return _checked(_layers(path, _reader(path.parent)), str(path))


def read_params(path: Path = Path(PARAMS), *, read: Callable[[str], str] | None = None) -> Tree:
    """Everything that params.yaml and its profile say, unchecked.

    Args:
        path: params.yaml; profiles/ lies beside it.
        read: Gives the text of a project file by its path in the project folder, for files that lie elsewhere,
            such as in another revision; None = the files beside `path`.

    Returns:
        A new mapping, nested like params.yaml.

    Raises:
        ParamsError: A file cannot be read, or params.yaml states options of I2I models.
    """
    return _merged(_layers(path, read or _reader(path.parent)))


def read_written(path: Path = Path(PARAMS)) -> Tree:
    """What params.yaml itself states, without its profile, unchecked.

    Raises:
        ParamsError: The file is missing or no YAML mapping.
    """
    return _parse(path.name, str(path), _reader(path.parent))


def read_profile(name: str, folder: Path = Path()) -> Tree:
    """Everything that a profile of the project in `folder` says, the I2I models' options among it, unchecked.

    Raises:
        ParamsError: No such profile, or it cannot be read.
    """
    return _merged(_profile_layers(name, _reader(folder)))


def check_profile(name: str, folder: Path = Path()) -> None:
    """Check that a profile is complete and valid by itself.

    Raises:
        ParamsError: As `load_params`.
    """
    _checked(_profile_layers(name, _reader(folder)), profile_file(name))


def leaves(tree: Mapping[str, Any], prefix: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Walk over a nested mapping's values with their keys; a list is one value, an empty mapping none."""
    for key, value in tree.items():
        place = (*prefix, str(key))
        yield from leaves(value, place) if isinstance(value, dict) else [(place, value)]


def overlay(below: Mapping[str, Any], above: Mapping[str, Any]) -> Tree:
    """Both mappings in a new one, the values of `above` where both have one."""
    result = dict(below)
    for key, value in above.items():
        old = result.get(key)
        result[key] = overlay(old if isinstance(old, dict) else {}, value) if isinstance(value, dict) else value
    return result


def _checked(layers: Mapping[str, Tree], where: str) -> Params:
    try:
        return Params.model_validate(_merged(layers))
    except ValidationError as error:
        problems = error.errors(include_url=False)
        text = f"{len(problems)} problem(s)"
        for problem in problems:
            text += f"\n  {_where(problem['loc'], layers)}: {problem['msg']}"
            if problem["type"] != "missing" and problem["loc"]:
                text += f" (got {problem['input']!r:.80})"
        raise ParamsError(where, text) from error


def _layers(path: Path, read: Callable[[str], str]) -> dict[str, Tree]:
    """The mappings that make up the parameters by their file, the lowest first."""
    raw = _parse(path.name, str(path), read)
    name = raw.get("profile")
    if not name:
        return {path.name: raw}
    models = _profile_layers(str(name), read)
    train_i2i = raw.get("train_i2i")
    misplaced = sorted(set(train_i2i if isinstance(train_i2i, dict) else {}) & set(models[MODELS]["train_i2i"]))
    if misplaced:
        keys = ", ".join(f"train_i2i.{key}" for key in misplaced)
        raise ParamsError(str(path), f"states {keys}", fix=f"set options of I2I models in {MODELS}")
    return {**models, path.name: raw}


def _profile_layers(name: str, read: Callable[[str], str]) -> dict[str, Tree]:
    files = (MODELS, profile_file(name))
    layers = {file: _parse(file, file, read) for file in files}
    if not isinstance(layers[MODELS].get("train_i2i"), dict):
        raise ParamsError(MODELS, "has no section train_i2i", "the options of every I2I model")
    return layers


def _merged(layers: Mapping[str, Tree]) -> Tree:
    result: Tree = {}
    for layer in layers.values():
        result = overlay(result, layer)
    return result


def _reader(folder: Path) -> Callable[[str], str]:
    return lambda name: (folder / name).read_text(encoding="utf-8")


def _parse(name: str, where: str, read: Callable[[str], str]) -> Tree:
    try:
        raw = yaml.safe_load(read(name))
    except FileNotFoundError as error:
        fix = f"set `profile` in {PARAMS} to a file of profiles/" if name.startswith("profiles/") else ""
        raise ParamsError(where, "cannot be read (no such file)", "a YAML file in UTF-8", fix) from error
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ParamsError(where, f"cannot be read ({error})", "a YAML file in UTF-8") from error
    if not isinstance(raw, dict):
        raise ParamsError(where, f"holds {type(raw).__name__}", "a mapping of sections")
    return raw


def _where(loc: tuple[int | str, ...], layers: Mapping[str, Tree]) -> str:
    """The key at fault, and the uppermost file that states it, or its section."""
    key = ".".join(map(str, loc))
    for depth in range(len(loc), 0, -1):
        for file, layer in reversed(list(layers.items())):
            if _states(layer, loc[:depth]):
                return f"{key} ({file})"
    return key or "between sections"


def _states(layer: Tree, loc: tuple[int | str, ...]) -> bool:
    place: Any = layer
    for part in loc:
        if isinstance(part, int):
            return True  # an element of a list that is there
        if not isinstance(place, dict) or part not in place:
            return False
        place = place[part]
    return True
