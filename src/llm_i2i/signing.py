"""Signatures of promoted models, by a key pair of one's own, in the format of OpenSSF's model-signing.

Without this project: `model_signing verify key FOLDER --signature FILE --public_key KEY`.
"""

import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from llm_i2i.errors import ArtifactError, LlmI2iError, needs_extra
from llm_i2i.files import copy_file, write_text


@contextmanager
def copied(name: str, files: Mapping[str, Path]) -> Iterator[Path]:
    """Copies of files in a folder of their own: what is checked there is what is read, whatever happens meanwhile.

    Args:
        name: Of the folder, which the signature names.
        files: Where each is, by its path in the folder.
    """
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch, name)
        for path, source in files.items():
            copy_file(source, folder / path)
        yield folder


def sign(folder: Path, key: Path) -> str:
    """Sign all files of a folder.

    Args:
        folder: As `copied` gives it.
        key: Private key in PEM, of an elliptic curve, without a password.

    Returns:
        The signature: a Sigstore bundle, JSON on one line.

    Raises:
        LlmI2iError: The key cannot be used, or extra `sign` is not installed.
    """
    with needs_extra("sign", "--signing-key"):
        from model_signing.signing import Config  # noqa: PLC0415 - a second, only where it is used
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch, "signature")
        try:
            Config().use_elliptic_key_signer(private_key=key).sign(folder, path)  # type: ignore[no-untyped-call]
        except (OSError, ValueError, TypeError) as error:
            raise LlmI2iError("--signing-key", f"{key} cannot be used ({error})", "a private key in PEM") from error
        return " ".join(path.read_text(encoding="utf-8").split())


def check(folder: Path, signature: str, key: Path, *, where: str) -> None:
    """Whether a folder holds exactly what was signed, by this key.

    Args:
        folder: As `copied` gives it.
        signature: As `sign` gave it; empty where there is none.
        key: Public key in PEM.
        where: What the user knows the model by.

    Raises:
        ArtifactError: It is not signed, not by this key, or was altered.
        LlmI2iError: Extra `sign` is not installed.
    """
    expected, fix = f"a signature by the key of {key}", "promote it with `--signing-key`, or do not serve it"
    if not signature.strip():
        raise ArtifactError(where, "is not signed", expected, fix)
    with needs_extra("sign", "--public-key"):
        from model_signing.verifying import Config  # noqa: PLC0415 - a second, only where it is used
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch, "signature")
        write_text(signature, path)
        try:
            Config().use_elliptic_key_verifier(public_key=key).verify(folder, path)  # type: ignore[no-untyped-call]
        except Exception as error:  # whatever the bundle's parsers and the key's raise, it is not verified
            found = f"was altered, or signed by another key ({type(error).__name__}: {error})"
            raise ArtifactError(where, found, expected, fix) from error
