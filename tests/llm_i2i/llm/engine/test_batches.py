import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st

from llm_i2i.llm.engine.batches import Sequence, collate, packed, padding_share, plan_batches


def plain(ids) -> Sequence:
    ids = np.asarray(ids, dtype=np.int64)
    return Sequence(ids, np.zeros_like(ids), np.array([len(ids) - 1]), np.array([0]), np.ones(1))


def test_positions_of_blocks_count_on_from_the_shared_beginning():
    sequence = packed(np.array([5, 6, 7]), [np.array([8]), np.array([9, 10])], np.array([0, 1]))
    batch = collate([sequence, plain([1, 2])], pad_id=0)
    assert batch.inputs["position_ids"][0].tolist() == [0, 1, 2, 3, 3, 4]
    assert batch.positions.tolist() == [3, 5, 1]
    sees = batch.inputs["attention_mask"][0, 0]
    assert sees[4].tolist() == [True, True, True, False, True, False]  # the second block does not see the first


@torch.no_grad()
def test_packed_questions_equal_separate_ones(module):
    rng = np.random.default_rng(3)
    beginnings = [rng.integers(3, 200, size=n) for n in (4, 11)]
    blocks = [[rng.integers(3, 200, size=k) for k in sizes] for sizes in ((1, 5, 2), (3, 3))]
    sequences = [
        packed(b, parts, np.zeros(len(parts), dtype=np.int64)) for b, parts in zip(beginnings, blocks, strict=True)
    ]
    batch = collate(sequences, pad_id=0)
    together = module(batch.inputs, batch.rows, batch.positions, None)
    separate = []
    for beginning, parts in zip(beginnings, blocks, strict=True):
        for part in parts:
            ids = torch.from_numpy(np.concatenate([beginning, part]))[None]
            separate.append(module.lm(input_ids=ids).logits[0, -1])
    torch.testing.assert_close(together, torch.stack(separate), atol=1e-4, rtol=1e-4)


@given(st.lists(st.integers(1, 60), min_size=1, max_size=80), st.integers(1, 200))
def test_batches_hold_every_sequence_once_within_the_budget(lengths, budget):
    batches = plan_batches(lengths, budget)
    assert sorted(i for batch in batches for i in batch) == list(range(len(lengths)))
    for batch in batches:
        widest = max(lengths[i] for i in batch)
        assert len(batch) == 1 or widest * len(batch) <= budget


def test_padding_share_by_hand():
    assert padding_share([4, 2, 5], [np.array([0, 1]), np.array([2])]) == 1 - 11 / 13


@given(st.lists(st.integers(1, 300), min_size=1, max_size=80), st.integers(1, 4096))
def test_batches_waste_at_most_a_tenth_whatever_the_lengths(lengths, budget):
    assert padding_share(lengths, plan_batches(lengths, budget)) <= 0.1 + 1e-12


def test_a_batch_is_not_cut_short_without_need():
    assert [batch.tolist() for batch in plan_batches([10, 10, 9, 10, 5], 40)] == [[0, 1, 3, 2], [4]]


def test_what_a_gpu_gets_is_pinned_from_memory_of_its_own(monkeypatch):
    """A view whose elements share memory cannot be pinned; the masks and positions of a batch are such views."""
    batch = collate([plain([5, 6, 7]), plain([8, 9])], pad_id=0)
    pinned = []

    def pin_memory(tensor):
        assert tensor.is_contiguous()
        pinned.append(tensor)
        return tensor

    to = torch.Tensor.to
    monkeypatch.setattr(torch.Tensor, "pin_memory", pin_memory)
    monkeypatch.setattr(torch.Tensor, "to", lambda tensor, *a, **k: tensor if "non_blocking" in k else to(tensor, *a))
    moved = batch.to(torch.device("cuda"))
    assert len(pinned) == len(batch.inputs) + 4
    assert not all(tensor.is_contiguous() for tensor in batch.inputs.values())
    for name, tensor in batch.inputs.items():
        assert moved.inputs[name].equal(tensor)
