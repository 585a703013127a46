import json
import threading

import numpy as np
import pandas as pd
import pytest
from redis import Redis

from llm_i2i.errors import ArtifactError
from llm_i2i.files import file_sha256, is_sealed, sealed
from llm_i2i.i2i import export, index_sha256, item_knn, to_index
from llm_i2i.i2i.export import export_jsonl, export_redis, load_jsonl, load_redis
from llm_i2i.schema import INDEX
from tests.llm_i2i.i2i.matrices import matrix

NAMES = ['"f"', "a", "b:c", "d e", "é*"]  # sorted, as a catalogue is


def some_index(seed: int = 0, n_users: int = 30) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    rows = [sorted(rng.choice(5, size=3, replace=False).tolist()) for _ in range(n_users)]
    return to_index(item_knn(matrix(rows, 5)), pd.DataFrame({"item_id": NAMES}).astype("str"))


def awkward_scores() -> pd.DataFrame:
    """float32 numbers whose short decimals are not exact: neighbours of 1, subnormal, huge."""
    index = some_index()
    scores = np.array([3.4e38, 1.0000001, 0.1, 1e-45], np.float32)
    index["score"] = scores[index["rank"].to_numpy() - 1]
    return index


@pytest.mark.parametrize("index", [some_index(), awkward_scores()], ids=["knn", "awkward"])
def test_json_lines_round_trip_is_exact(index, tmp_path):
    path = tmp_path / "out" / "index.jsonl"
    export_jsonl(index.sample(frac=1.0, random_state=1), {"model": "item_knn"}, path)
    back = load_jsonl(path)
    assert back["score"].to_numpy().tobytes() == index["score"].to_numpy().tobytes()
    pd.testing.assert_frame_equal(back, index)
    manifest = json.loads((path.parent / "index.jsonl.manifest.json").read_text(encoding="utf-8"))
    assert is_sealed(manifest)
    told = {"model": "item_knn", "rows": len(index), "content_sha256": index_sha256(index)}
    assert manifest == sealed({**told, "file_sha256": file_sha256(path)})
    first = json.loads(path.read_text(encoding="utf-8").splitlines()[0])
    assert first["item_id"] == index["item_id"].iloc[0]
    assert [pair[0] for pair in first["neighbours"]] == index["neighbour_id"].tolist()[: len(first["neighbours"])]


def test_a_failed_export_leaves_the_last_one(tmp_path, monkeypatch):
    path = tmp_path / "index.jsonl"
    export_jsonl(some_index(), {}, path)
    before = path.read_bytes()
    monkeypatch.setattr(export, "load_jsonl", lambda _: some_index().iloc[1:])
    with pytest.raises(ArtifactError, match="read back"):
        export_jsonl(some_index(3), {}, path)
    assert path.read_bytes() == before
    assert sorted(found.name for found in tmp_path.iterdir()) == ["index.jsonl", "index.jsonl.manifest.json"]


def test_a_broken_line_is_named(tmp_path):
    path = tmp_path / "index.jsonl"
    path.write_text('{"item_id":"a","neighbours":[]}\n{"item_id":"b"}\n', encoding="utf-8")
    with pytest.raises(ArtifactError, match="line 2"):
        load_jsonl(path)


@pytest.mark.parametrize("index", [some_index(), awkward_scores()], ids=["knn", "awkward"])
def test_redis_round_trip_is_exact(index, redis_url):
    version = export_redis(index, {"model": "item_knn"}, redis_url, prefix="shop")
    back, manifest = load_redis(redis_url, prefix="shop")
    assert back["score"].to_numpy().tobytes() == index["score"].to_numpy().tobytes()
    pd.testing.assert_frame_equal(back, index)
    assert manifest["content_sha256"] == index_sha256(index)
    assert manifest["content_sha256"].startswith(version)
    assert manifest["rows"] == len(index)


def test_redis_batches_larger_than_one(redis_url, monkeypatch):
    monkeypatch.setattr(export, "BATCH", 2)
    export_redis(some_index(), {}, redis_url, prefix="p")
    pd.testing.assert_frame_equal(load_redis(redis_url, prefix="p")[0], some_index())


def test_redis_keeps_current_and_previous_and_leaves_other_keys_alone(redis_url):
    client = Redis.from_url(redis_url, decode_responses=True)
    client.set("shopX:0123:manifest", "not ours")
    versions = [export_redis(some_index(seed), {}, redis_url, prefix="shop*") for seed in (1, 2, 3)]
    export_redis(some_index(3), {}, redis_url, prefix="shop*")
    assert len(set(versions)) == 3
    assert client.get("shop*:current") == versions[2]
    assert client.get("shop*:previous") == versions[1]
    left = {key.split(":")[1] for key in client.scan_iter() if key.startswith("shop*:")}
    assert left == {*versions[1:], "current", "previous"}
    assert client.get("shopX:0123:manifest") == "not ours"


def test_the_pointer_stays_where_verification_fails(redis_url, monkeypatch):
    first = export_redis(some_index(1), {}, redis_url, prefix="shop")
    real = export._read
    monkeypatch.setattr(export, "_read", lambda *a: (real(*a)[0].iloc[1:], ""))
    with pytest.raises(ArtifactError, match="read back"):
        export_redis(some_index(2), {}, redis_url, prefix="shop")
    monkeypatch.undo()
    assert Redis.from_url(redis_url, decode_responses=True).get("shop:current") == first
    pd.testing.assert_frame_equal(load_redis(redis_url, prefix="shop")[0], some_index(1))


def test_damage_in_redis_is_an_error(redis_url):
    version = export_redis(some_index(), {}, redis_url, prefix="shop")
    client = Redis.from_url(redis_url)
    client.set(f"shop:{version}:item:a", '[["b:c",0.5]]')
    with pytest.raises(ArtifactError, match="damaged"):
        load_redis(redis_url, prefix="shop")
    client.delete(f"shop:{version}:item:a")
    with pytest.raises(ArtifactError, match="item:a is gone"):
        load_redis(redis_url, prefix="shop")
    with pytest.raises(ArtifactError, match="has no key nothing:current"):
        load_redis(redis_url, prefix="nothing")


def test_no_server_and_no_address():
    with pytest.raises(ArtifactError, match="Redis failed"):
        load_redis("redis://127.0.0.1:1/0", prefix="p")
    with pytest.raises(ArtifactError, match="no Redis address"):
        load_redis("ftp://127.0.0.1", prefix="p")


LARGE = 3_000  # items: more than a batch, and enough to be killed in the middle of


def large_index(seed: int) -> pd.DataFrame:
    scores = np.random.default_rng(seed).random(LARGE).astype(np.float32)
    ids = [f"item {n:05d}" for n in range(LARGE)]
    return pd.DataFrame({"item_id": ids, "neighbour_id": ids[::-1], "score": scores, "rank": 1}).astype(INDEX)


def versions(client: Redis) -> set[str]:
    return {key.split(":")[1] for key in client.scan_iter("p:*", count=1000)} - {"current", "previous"}


def test_ids_and_prefixes_that_end_like_our_keys_lose_nothing(redis_url):
    names = ["a", "b:manifest", "c:items", "d:unfinished-items", "e"]
    tables = [some_index(seed).replace(dict(zip(NAMES, names, strict=True))) for seed in (1, 2, 3)]
    for prefix in ("p:q", "p"):
        for table in tables:
            export_redis(table, {}, redis_url, prefix=prefix)
    for prefix in ("p:q", "p"):
        back = load_redis(redis_url, prefix=prefix)[0]
        assert index_sha256(back) == index_sha256(tables[-1].sort_values(["item_id", "rank"], ignore_index=True))


@pytest.mark.parametrize("again", [False, True], ids=["another version", "the version that counts"])
def test_a_full_redis_keeps_what_it_serves_and_gets_its_room_back(lasting_redis, again):
    client = Redis.from_url(lasting_redis.url, decode_responses=True)
    first = export_redis(large_index(1), {}, lasting_redis.url, prefix="p")
    client.config_set("maxmemory-policy", "noeviction")
    client.config_set("maxmemory", client.info("memory")["used_memory"] + (0 if again else 200_000))
    with pytest.raises(ArtifactError, match=r"Redis failed \(.*maxmemory.*a Redis server that can be"):
        export_redis(large_index(1 if again else 2), {}, lasting_redis.url, prefix="p")
    pd.testing.assert_frame_equal(load_redis(lasting_redis.url, prefix="p")[0], large_index(1))
    assert versions(client) == {first}
    client.config_set("maxmemory", 0)
    second = export_redis(large_index(2), {}, lasting_redis.url, prefix="p")
    assert versions(client) == {first, second}
    pd.testing.assert_frame_equal(load_redis(lasting_redis.url, prefix="p")[0], large_index(2))


def test_a_list_of_items_that_is_refused_leaves_no_item(lasting_redis):
    """As a server does that is full just then, and has room for the next, smaller value."""
    client = Redis.from_url(lasting_redis.url, decode_responses=True)
    export_redis(large_index(1), {}, lasting_redis.url, prefix="p")
    before = client.dbsize()
    client.acl_setuser("default", enabled=True, nopass=True, keys=["*"], commands=["+@all", "-rpush"])
    with pytest.raises(ArtifactError, match=r"Redis failed \(.*rpush"):
        export_redis(large_index(2), {}, lasting_redis.url, prefix="p")
    assert client.dbsize() == before


def test_a_redis_that_dies_during_an_export_serves_the_version_before_when_it_is_back(lasting_redis, monkeypatch):
    monkeypatch.setattr(export, "BATCH", 20)
    client = Redis.from_url(lasting_redis.url, decode_responses=True)
    export_redis(large_index(1), {}, lasting_redis.url, prefix="p")
    before = client.dbsize()

    def kill_in_the_middle() -> None:
        while client.dbsize() < before + LARGE // 3:
            pass
        lasting_redis.kill()

    killer = threading.Thread(target=kill_in_the_middle)
    killer.start()
    with pytest.raises(ArtifactError, match="Redis failed"):
        export_redis(large_index(2), {}, lasting_redis.url, prefix="p")
    killer.join()
    with pytest.raises(ArtifactError, match="Redis failed"):
        load_redis(lasting_redis.url, prefix="p")
    lasting_redis.start()
    assert before < client.dbsize() < before + LARGE  # it died in the middle
    pd.testing.assert_frame_equal(load_redis(lasting_redis.url, prefix="p")[0], large_index(1))
    export_redis(large_index(3), {}, lasting_redis.url, prefix="p")
    pd.testing.assert_frame_equal(load_redis(lasting_redis.url, prefix="p")[0], large_index(3))
    assert len(versions(client)) == 2  # nothing is left of the second
