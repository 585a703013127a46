"""Signed or refused: what is served with a public key is what was signed by its private one, file by file."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from llm_i2i import signing
from llm_i2i.errors import ArtifactError, LlmI2iError
from llm_i2i.serving.build import Follower, Source, build, parts, signature_of
from llm_i2i.serving.state import read_state
from tests.conftest import key_pair
from tests.llm_i2i.serving.conftest import Shop, a_shop

pytest.importorskip("model_signing", reason="extra `sign` is not installed")
RUN = "swing-real"


def there(shop: Shop) -> dict[str, Path]:
    return {name: shop.root / name for name in parts(RUN) if (shop.root / name).is_file()}


def sign(shop: Shop, key: Path) -> None:
    with signing.copied(RUN, there(shop)) as folder:
        signature_of(shop.folder).write_text(signing.sign(folder, key), encoding="utf-8")


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return key_pair(tmp_path_factory.mktemp("keys"))


@pytest.fixture
def shop(tmp_path: Path, keys: tuple[Path, Path]) -> Shop:
    """A shop whose run is signed."""
    made = a_shop(tmp_path)
    sign(made, keys[0])
    return made


def checked(shop: Shop, key: Path) -> Source:
    return replace(shop.source, public_key=str(key))


def test_what_is_signed_is_served_as_without_a_key(shop: Shop, keys: tuple[Path, Path]) -> None:
    content = checked(shop, keys[1]).read()
    plain = shop.source.read()
    assert content.index.equals(plain.index)
    assert content.items.equals(plain.items)
    assert (content.vectors == plain.vectors).all()


def test_a_changed_bit_of_any_file_is_refused(shop: Shop, keys: tuple[Path, Path]) -> None:
    """Also of those that only the other links of the chain use."""
    names = there(shop)
    assert {"i2i/swing-real/index.parquet", "items/items.parquet", "text/vectors.npy"} <= set(names)
    for name, path in names.items():
        whole = path.read_bytes()
        path.write_bytes(whole[:-9] + bytes([whole[-9] ^ 1]) + whole[-8:])
        with pytest.raises(ArtifactError, match=name.replace(".", r"\.")):
            checked(shop, keys[1]).read()
        path.write_bytes(whole)
    checked(shop, keys[1]).read()


@pytest.mark.parametrize("change", ["unsigned", "other key", "no bundle", "cut", "one file more", "one file less"])
def test_what_is_not_exactly_what_was_signed_is_one_error(
    shop: Shop, keys: tuple[Path, Path], tmp_path: Path, change: str
) -> None:
    path = signature_of(shop.folder)
    text = path.read_text(encoding="utf-8")
    if change == "unsigned":
        path.unlink()
    elif change == "other key":
        sign(shop, key_pair(tmp_path / "other")[0])
    elif change in ("no bundle", "cut"):
        path.write_text("{}" if change == "no bundle" else text[:-40], encoding="utf-8")
    elif change == "one file more":
        (shop.root / "fused").mkdir()
        (shop.root / "fused" / "real.parquet").write_bytes(shop.catalogue.read_bytes())
    else:
        shop.vectors.unlink()
    with pytest.raises(ArtifactError, match=r"^--index .*swing-real: .*expected a signature by the key of"):
        checked(shop, keys[1]).read()


def test_what_was_built_unchecked_does_not_go_on_under_a_key(shop: Shop, keys: tuple[Path, Path]) -> None:
    (shop.store / "versions").mkdir(parents=True)
    build(shop.source, shop.store)
    signature_of(shop.folder).unlink()
    with pytest.raises(LlmI2iError, match="is not signed"):
        Follower(checked(shop, keys[1]), shop.store, build).start()


def test_a_signed_version_goes_on_when_the_next_one_is_not_signed(shop: Shop, keys: tuple[Path, Path]) -> None:
    (shop.store / "versions").mkdir(parents=True)
    follower = Follower(checked(shop, keys[1]), shop.store, build)
    follower.start()
    before = read_state(shop.store)["version"]
    shop.catalogue.write_bytes(shop.catalogue.read_bytes() + b"\0")
    follower.update()
    state = read_state(shop.store)
    assert state["version"] == before
    assert "items/items.parquet" in state["refused"]


def test_redis_cannot_be_checked(shop: Shop, keys: tuple[Path, Path]) -> None:
    shop.redis = "redis://me:secret@127.0.0.1:1/0"
    with pytest.raises(ArtifactError, match="--public-key") as told:
        checked(shop, keys[1]).read()
    assert "secret" not in str(told.value)


def test_a_key_that_is_none_is_one_error(tmp_path: Path) -> None:
    (tmp_path / "f").mkdir()
    (tmp_path / "key").write_text("no key", encoding="utf-8")
    for key in ("key", "nowhere"):
        with pytest.raises(LlmI2iError, match="--signing-key"):
            signing.sign(tmp_path / "f", tmp_path / key)


def test_others_can_check_it_with_model_signings_own_command(shop: Shop, keys: tuple[Path, Path]) -> None:
    with signing.copied(RUN, there(shop)) as folder:
        arguments = ["--signature", str(signature_of(shop.folder)), "--public_key", str(keys[1])]
        command = [sys.executable, "-m", "model_signing", "verify", "key", str(folder), *arguments]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "succeeded" in done.stdout + done.stderr
