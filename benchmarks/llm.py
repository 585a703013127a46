"""Speed of the LLM engine against the plain way of doing the same, in one run on one machine.

    python benchmarks/llm.py [--base-model artifacts/base_model] [--users 8] [--items 12000] [--only synthesis]

Each row compares like with like and first checks that both give the same answer:

* training: one pass with a loss at every item, against one prompt per target;
* synthesis: tensor trie with shared prompts, against `generate` with a Python `prefix_allowed_tokens_fn`, all users
  in one call; five items per user at width 8 and twenty at width 20, where items are titles and where they are tokens;
* scoring: ten questions on one encoded history, against one forward pass per pair, one call per pair and in batches.
"""

import argparse
import itertools
import json
import resource
import time
from collections.abc import Callable
from collections.abc import Sequence as SequenceOf
from pathlib import Path
from typing import Any

import numpy as np
import torch

from llm_i2i.llm.engine.base_model import prepare_base_model
from llm_i2i.llm.engine.batches import Sequence, collate
from llm_i2i.llm.engine.beam import NextItems
from llm_i2i.llm.engine.device import Runtime
from llm_i2i.llm.engine.logits import TargetLogits
from llm_i2i.llm.engine.loss import weighted_nll
from llm_i2i.llm.engine.models import load_for_inference, load_tokenizer
from llm_i2i.llm.engine.new_tokens import describe_tokens
from llm_i2i.llm.engine.trie import Catalogue, tokenize_catalogue
from llm_i2i.llm.generator import window_sequence
from llm_i2i.llm.identifiers import Vocabulary
from llm_i2i.llm.prompts import discriminator_prompt, discriminator_template, generator_prompt, generator_template
from llm_i2i.llm.questions import questions, read_margins
from llm_i2i.llm.role import Role
from llm_i2i.params import Softmax, load_params

SYLLABLES = ("ba", "co", "di", "fu", "ga", "hi", "jo", "ka", "lu", "me", "no", "pi", "ra", "so", "ti", "vu")


def catalogue_texts(n_items: int, rng: np.random.Generator) -> list[str]:
    """Product-like titles of three to six words out of a small vocabulary, so that prefixes are shared."""
    words = np.array([a + b for a in SYLLABLES for b in SYLLABLES])
    texts: dict[str, None] = {}
    while len(texts) < n_items:
        texts[" ".join(rng.choice(words, size=int(rng.integers(3, 7))))] = None
    return list(texts)


def timed(run: Callable[[], Any]) -> tuple[Any, float]:
    """Result and CPU seconds of a call: other work on the machine counts for nothing."""
    started = time.process_time()
    result = run()
    return result, time.process_time() - started


def training(
    module: TargetLogits, tokenizer: Any, catalogue: Catalogue, rng: np.random.Generator, users: int
) -> list[dict[str, Any]]:
    """Forward and backward through every target of `users` windows of 11 items."""
    prompt = generator_prompt(tokenizer, generator_template("generator_v1"))
    weights = np.where(rng.random(len(catalogue.lengths)) < 0.2, 4.0, 1.0)
    windows = [rng.choice(len(weights), size=11, replace=False) for _ in range(users)]
    for parameter in module.parameters():
        parameter.requires_grad_(requires_grad=True)

    def loss_of(sequences: list[Sequence], total: float) -> float:
        batch = collate(sequences, 0)
        loss = weighted_nll(module(batch.inputs, batch.rows, batch.positions, None), batch.labels, batch.weights, total)
        loss.backward()
        return float(loss.detach())

    together = [window_sequence(w, prompt, catalogue, weights) for w in windows]
    total = float(sum(s.weights.sum() for s in together))
    single = []
    for window in windows:
        for t in range(1, len(window)):
            whole = window_sequence(window[: t + 1], prompt, catalogue, weights)
            last = slice(len(whole.positions) - int(catalogue.lengths[window[t]]), None)
            single.append(
                Sequence(whole.ids, whole.blocks, whole.positions[last], whole.labels[last], whole.weights[last])
            )
    ours, ours_s = timed(lambda: loss_of(together, total))
    theirs, theirs_s = timed(lambda: sum(loss_of(single[i : i + users], total) for i in range(0, len(single), users)))
    for parameter in module.parameters():
        parameter.requires_grad_(requires_grad=False)
    targets = 10 * users
    return [
        {
            "what": "training, target items/s",
            "plain": targets / theirs_s,
            "ours": targets / ours_s,
            "difference": f"loss {abs(ours - theirs):.1e}",
        }
    ]


def synthesis(
    module: TargetLogits, tokenizer: Any, catalogue: Catalogue, rng: np.random.Generator, users: int
) -> list[dict[str, Any]]:
    """Beam search for `users` histories of 10 items, the histories excluded."""
    prompt = generator_prompt(tokenizer, generator_template("generator_v1"))
    histories = [np.sort(rng.choice(len(catalogue.lengths), size=10, replace=False)) for _ in range(users)]
    prompts = [np.concatenate([prompt.prefix, catalogue.concat(h)]) for h in histories]
    rows = []
    softmaxes: tuple[Softmax, ...] = ("catalogue", "vocabulary") if catalogue.terminated else ("catalogue",)
    for softmax, (n, num_beams) in itertools.product(softmaxes, ((5, 8), (20, 20))):
        next_items = NextItems(module, catalogue, torch.device("cpu"), softmax=softmax)
        # The library's softmax is over the open items only: the same as ours over the catalogue where all are open.
        excluded = [h[:0] for h in histories] if softmax == "catalogue" else histories
        search = {"n": n, "num_beams": num_beams}
        ours, ours_s = timed(lambda search=search, by=next_items, out=excluded: by.top(prompts, out, **search))
        plain = {"renormalize_logits": softmax == "catalogue", **search}
        theirs, theirs_s = timed(
            lambda plain=plain, out=excluded: library_search(module, catalogue, prompts, out, **plain)
        )
        items, logprobs = theirs
        same = np.mean([a.tolist() == b for a, b in zip(ours.items, items, strict=True)])
        mass = np.exp(ours.logprobs).sum(axis=1) / np.exp(logprobs).sum(axis=1)
        kind = f"titles, softmax over the {softmax}" if catalogue.terminated else "tokens"
        rows.append(
            {
                "what": f"{n} of {len(catalogue.lengths):,} {kind}, width {num_beams}, users/s",
                "plain": users / theirs_s,
                "ours": users / ours_s,
                "difference": f"same items in the same order for {same:.0%} of users; their probability is "
                f"{mass.mean():.3f} times that of the plain search's ({mass.min():.3f} to {mass.max():.3f})",
            }
        )
    return rows


@torch.no_grad()
def library_search(
    module: TargetLogits,
    catalogue: Catalogue,
    prompts: list[np.ndarray],
    histories: list[np.ndarray],
    *,
    n: int,
    num_beams: int,
    renormalize_logits: bool,
) -> tuple[list[list[int]], np.ndarray]:
    """The same search by the library: one dictionary trie per user, read by one callback per beam and step.

    Returns the items and their log-probabilities, (users, n).
    """
    item_of = {tuple(catalogue.item(i).tolist()): i for i in range(len(catalogue.lengths))}
    tries = []
    for history in histories:
        root: dict[int, Any] = {}
        for item in np.setdiff1d(np.arange(len(catalogue.lengths)), history):
            node = root
            for token in catalogue.item(int(item)).tolist():
                node = node.setdefault(token, {})
        tries.append(root)
    length = max(map(len, prompts))
    ids = torch.full((len(prompts), length), catalogue.end_id)
    mask = torch.zeros((len(prompts), length), dtype=torch.long)
    for row, prompt in enumerate(prompts):
        ids[row, length - len(prompt) :] = torch.from_numpy(prompt)
        mask[row, length - len(prompt) :] = 1

    def allowed(row: int, sequence: torch.Tensor) -> list[int]:
        node = tries[row]
        for token in sequence[length:].tolist():
            node = node.get(token, {})
        return list(node) or [catalogue.end_id]

    out = module.lm.generate(
        input_ids=ids.to(module.lm.device),
        attention_mask=mask.to(module.lm.device),
        prefix_allowed_tokens_fn=allowed,
        num_beams=num_beams,
        num_return_sequences=n,
        do_sample=False,
        renormalize_logits=renormalize_logits,
        length_penalty=0.0,
        max_new_tokens=int(catalogue.lengths.max()),
        eos_token_id=catalogue.end_id,
        pad_token_id=catalogue.end_id,
        return_dict_in_generate=True,
        output_scores=True,
    )
    made = out.sequences[:, length:].tolist()
    ends = [row.index(catalogue.end_id) + 1 if catalogue.terminated else len(row) for row in made]
    found = [item_of.get(tuple(row[:end]), -1) for row, end in zip(made, ends, strict=True)]
    scores = out.sequences_scores.view(len(prompts), n).cpu().numpy()
    return [found[i : i + n] for i in range(0, len(found), n)], scores


def scoring(
    module: TargetLogits, tokenizer: Any, catalogue: Catalogue, rng: np.random.Generator, users: int
) -> list[dict[str, Any]]:
    """Ten candidates for each of `users` histories of 10 items."""
    prompt = discriminator_prompt(tokenizer, discriminator_template("discriminator_v1"))
    chosen = [rng.choice(len(catalogue.lengths), size=20, replace=False) for _ in range(users)]
    no = np.zeros(10, dtype=np.int64)
    device, context = Runtime(torch.device("cpu"), module.lm.dtype), module.lm.config.max_position_embeddings
    # Setup and task are for loading and history lengths: nothing here asks for them.
    role = Role(None, None, prompt, Vocabulary(tokenizer, catalogue, None), device, context)
    together = [questions(c[:10], c[10:], no, role) for c in chosen]
    separate = [questions(c[:10], c[10 + k : 11 + k], no[:1], role) for c in chosen for k in range(10)]
    ours, ours_s = timed(lambda: np.concatenate(read_margins(role, module, together, batch_tokens=2048)))
    plain = {
        "one call per pair": lambda: np.array([_forward(module, s, prompt.answers) for s in separate]),
        "in batches": lambda: np.concatenate(read_margins(role, module, separate, batch_tokens=2048)),
    }
    rows = []
    for words, run in plain.items():
        theirs, theirs_s = timed(run)
        gap = np.abs(1 / (1 + np.exp(-ours)) - 1 / (1 + np.exp(-theirs))).max()
        rows.append(
            {
                "what": f"scoring, pairs/s (plain: {words})",
                "plain": 10 * users / theirs_s,
                "ours": 10 * users / ours_s,
                "difference": f"p_yes {gap:.1e}",
            }
        )
    return rows


@torch.no_grad()
def _forward(module: TargetLogits, sequence: Sequence, answers: tuple[int, int]) -> float:
    """One full forward pass of the library's model over one prompt."""
    logits = module.lm(input_ids=torch.from_numpy(sequence.ids)[None], use_cache=False).logits[0, -1]
    return float(logits[answers[1]] - logits[answers[0]])


def loaded(base_model: Path, texts: list[str], new_tokens: SequenceOf[str]) -> tuple[TargetLogits, Any, Catalogue]:
    """Model, tokenizer and catalogue; an item is its text, or a new token that begins as its text's mean.

    In fp32, so that equal answers are equal to rounding.
    """
    tokenizer = load_tokenizer(base_model, new_tokens)
    catalogue = tokenize_catalogue(new_tokens or texts, tokenizer, new_tokens)
    new = describe_tokens(tokenizer, new_tokens, catalogue.tokens, texts, seed=0) if new_tokens else None
    runtime = Runtime(torch.device("cpu"), torch.float32)
    module = TargetLogits(load_for_inference(base_model, None, runtime, new_tokens=new))
    one = torch.zeros(1, dtype=torch.long)
    module({"input_ids": torch.ones(1, 8, dtype=torch.long)}, one, one, None)  # the first call is slow
    return module, tokenizer, catalogue


def main() -> None:
    """Run all comparisons and print a Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--base-model", type=Path, default=Path("artifacts/base_model"))
    parser.add_argument("--users", type=int, default=8)
    parser.add_argument("--items", type=int, default=12_000)
    measures = {"scoring": scoring, "synthesis": synthesis, "training": training}
    parser.add_argument("--only", choices=list(measures), nargs="+", default=list(measures))
    options = parser.parse_args()
    if not (options.base_model / "manifest.json").is_file():
        params = load_params(Path(__file__).parents[1] / "params.yaml").base_model
        params = params.model_copy(update={"source": "embedded"})
        prepare_base_model(params, seed=0, out=options.base_model, downloads=Path(".downloads"))
    rng = np.random.default_rng(0)
    texts = catalogue_texts(options.items, rng)
    titles = loaded(options.base_model, texts, ())
    name = json.loads((options.base_model / "manifest.json").read_text(encoding="utf-8"))["id"]
    print(f"{name}, fp32, {torch.get_num_threads()} threads, {options.users} users\n")
    print("| what | plain | ours | ratio | difference |\n| --- | ---: | ---: | ---: | --- |")
    for name in options.only:
        rows = measures[name](*titles, rng, options.users)
        if name == "synthesis":
            tokens = loaded(options.base_model, texts, [f"<item_{i}>" for i in range(len(texts))])
            rows += synthesis(*tokens, rng, options.users)
        for row in rows:
            print(
                f"| {row['what']} | {row['plain']:.2f} | {row['ours']:.2f} | {row['ours'] / row['plain']:.1f} "
                f"| {row['difference']} |",
                flush=True,
            )
    print(f"\npeak memory {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20:.1f} GiB")


if __name__ == "__main__":
    main()
