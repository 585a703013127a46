"""Shards: whole or not at all, of this work or not at all, each made once whoever makes it."""

from contextlib import contextmanager, suppress

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llm_i2i.llm.engine.shards import Part, PartDone, Shards, Wanted, alike, fingerprint


@pytest.fixture
def made():
    return []


@pytest.fixture
def make(made):
    """A shard's number, noted when it is made."""

    def make(number):
        made.append(number)
        return {"a": np.array([number, number]), "b": np.array([0.5], dtype=np.float32)}

    return make


def test_shards_come_back_in_another_run_of_the_same_work(tmp_path, make, made):
    first, found = Shards(tmp_path).results("work", 3, make)
    assert (made, found) == ([0, 1, 2], 0)
    again, found = Shards(tmp_path).results("work", 3, make)
    assert (made, found) == ([0, 1, 2], 3)
    assert [shard["a"].tolist() for shard in again] == [[0, 0], [1, 1], [2, 2]]
    assert again[0]["b"].dtype == first[0]["b"].dtype == np.float32


def test_shards_of_other_work_are_neither_taken_nor_deleted(tmp_path, make, made):
    for work, found in (("work", 0), ("other", 0), ("work", 2)):
        assert Shards(tmp_path).results(work, 2, make)[1] == found
    assert made == [0, 1, 0, 1]


def test_a_torn_shard_and_a_lost_one_are_made_again_alone(tmp_path, make, made):
    Shards(tmp_path).results("work", 4, make)
    paths = sorted(tmp_path.rglob("*.npz"))
    paths[1].write_bytes(paths[1].read_bytes()[:60])
    paths[2].unlink()
    made.clear()
    again, found = Shards(tmp_path).results("work", 4, make)
    assert (made, found) == ([1, 2], 2)
    assert [int(shard["a"][0]) for shard in again] == [0, 1, 2, 3]


@pytest.mark.parametrize("of", [1, 2, 3, 16])
def test_parts_make_every_shard_once_and_nothing_is_left_to_merge(tmp_path, make, made, of):
    for number in range(1, of + 1):
        with pytest.raises(PartDone):
            Shards(tmp_path, Part(number, of)).results("work", 10, make)
    assert sorted(made) == list(range(10))
    merged, found = Shards(tmp_path).results("work", 10, make)
    assert (len(made), found) == (10, 10)
    assert [int(shard["a"][0]) for shard in merged] == list(range(10))


def test_with_helpers_it_makes_its_own_part_and_then_what_nobody_has_made(tmp_path, make, made):
    @contextmanager
    def helpers():
        """A helper that has made its first shard when this process comes to the end of its own part."""

        def check():
            if made == [0, 2, 4]:
                with suppress(PartDone):
                    Shards(tmp_path, Part(2, 5)).results("work", 5, make)

        yield Part(1, 2), check

    results, found = Shards(tmp_path, helpers=helpers).results("work", 5, make)
    assert (made, found) == ([0, 2, 4, 1, 3], 0)
    assert [int(shard["a"][0]) for shard in results] == [0, 1, 2, 3, 4]


def test_no_helper_is_called_when_all_is_there(tmp_path, make):
    Shards(tmp_path).results("work", 2, make)
    assert Shards(tmp_path, helpers=lambda: pytest.fail("called")).results("work", 2, make)[1] == 2


def test_fingerprints_differ_where_parts_do():
    prints = [
        fingerprint(["a", np.array([1])]),
        fingerprint(["b", np.array([1])]),
        fingerprint(["a", np.array([2])]),
        fingerprint(["ab"]),
        fingerprint(["a", "b"]),
    ]
    assert len(set(prints)) == len(prints)


def of_each(kept, names, folder, computed):
    """Results of names: as many rows as a name has letters, each a number made of the name alone."""

    def make(places):
        computed.extend(names[place] for place in places)
        return {"x": np.array([float(len(names[p]) * 10 + n) for p in places for n in range(len(names[p]))])}

    sizes = np.array([len(name) for name in names], dtype=np.int64)
    wanted = Wanted(
        lambda: [fingerprint([name]) for name in names], sizes,
        lambda places: alike(places, [(int(size),) for size in sizes], lambda shape: 1 + shape[0] % 2),
    )  # fmt: skip
    found, facts = Shards(folder, kept=kept).of_each(fingerprint(names), wanted, make)
    return found["x"].tolist(), facts


@settings(max_examples=40, deadline=None)
@given(days=st.lists(st.lists(st.text("abc", min_size=1, max_size=4), min_size=1, max_size=9, unique=True), max_size=4))
def test_what_is_kept_is_taken_over_and_the_rest_is_made(days, tmp_path_factory):
    folder, last = tmp_path_factory.mktemp("shards"), set()
    for number, names in enumerate(days):
        computed = []
        found, facts = of_each(folder / "kept.npz", names, folder / str(number), computed)
        assert found == [float(len(name) * 10 + n) for name in names for n in range(len(name))]
        assert sorted(computed) == sorted(set(names) - last)
        assert facts.get("taken_over", 0) == len(set(names) & last)
        assert of_each(None, names, folder / f"anew {number}", [])[0] == found
        last = set(names)


def test_a_killed_run_whose_kept_results_have_changed_since_takes_no_shard_of_another_batch(tmp_path):
    """Which members a shard has depends on what is kept."""
    of_each(tmp_path / "kept.npz", ["a"], tmp_path / "first", [])
    for kept in ("kept.npz", "none.npz"):
        assert of_each(tmp_path / kept, ["a", "b", "cc"], tmp_path / "shards", [])[0] == [10.0, 10.0, 20.0, 21.0]


def test_batches_are_of_one_shape_and_hold_every_place_once():
    shapes = [(3,), (5,), (3,), (3,), (5,), (9,)]
    batches = [batch.tolist() for batch in alike(np.array([0, 1, 2, 3, 5]), shapes, lambda _: 2)]
    assert batches == [[5], [1], [0, 2], [3]]
