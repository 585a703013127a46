import asyncio
import errno
import threading
import time
from types import SimpleNamespace

import pytest

from llm_i2i import files
from llm_i2i.errors import LlmI2iError
from llm_i2i.i2i.export import export_redis
from llm_i2i.serving import build as building
from llm_i2i.serving.build import Follower, build
from llm_i2i.serving.state import read_state, write_state
from tests.llm_i2i.serving.conftest import NAMES, an_index, ready


def damage(shop) -> None:
    (shop.folder / "index.parquet").write_bytes(b"no table")


def test_a_changed_index_takes_over(shop):
    follower = Follower(shop.source, shop.store, build)
    follower.start()
    with shop.client() as client:
        first = ready(client)
        shop.write_index(an_index(1))
        follower.update()
        second = ready(client)
        assert first["version"] != second["version"]
        assert client.post("/v1/recommend", json={}).json()["version"] == second["version"]


def test_a_damaged_source_is_refused_and_the_old_version_goes_on(shop, caplog):
    follower = Follower(shop.source, shop.store, build)
    follower.start()
    with shop.client() as client:
        first = ready(client)
        damage(shop)
        follower.update()
        told = ready(client)
        assert told["ready"]
        assert told["version"] == first["version"]
        assert "index.parquet: unreadable" in told["refused"]
        assert "refused" in caplog.text
        assert client.post("/v1/recommend", json={}).status_code == 200
        shop.write_index(an_index())  # as before, and the reason goes
        follower.update()
        assert ready(client) == first


def test_a_damaged_version_is_refused_until_it_is_made_again(shop, caplog):
    follower = Follower(shop.source, shop.store, build)
    follower.start()
    first = shop.opened().version
    with shop.client() as client:
        shop.write_index(an_index(1))
        second = shop.build().version
        scores = shop.store / "versions" / second / "index_scores.npy"
        scores.write_bytes(scores.read_bytes()[:-1] + b"x")
        told = ready(client)
        assert (told["ready"], told["version"]) == (True, first)
        assert "index_scores.npy: is damaged" in told["refused"]
        assert "index_scores.npy: is damaged" in caplog.text
        assert client.get("/v1/index").json()["arms"][0]["version"] == first
        follower.update()
        assert ready(client) == {"ready": True, "arm": "real", "version": second, "refused": ""}


def test_the_source_is_looked_at_only_when_it_changes(shop, monkeypatch):
    builds = []

    def counted(source, store):
        builds.append(source)
        build(source, store)

    follower = Follower(shop.source, shop.store, counted)
    follower.start()
    follower.update()
    assert len(builds) == 1
    Follower(shop.source, shop.store, counted).start()  # a restart finds the version ready
    assert len(builds) == 1
    damage(shop)
    follower.update()
    follower.update()
    assert len(builds) == 2
    monkeypatch.setattr(building, "RETRY_SECONDS", -1)
    follower.update()
    assert len(builds) == 3


def test_a_start_needs_a_good_source_or_an_earlier_version_of_it(shop):
    good = shop.folder / "index.parquet"
    content = good.read_bytes()
    damage(shop)
    with pytest.raises(LlmI2iError, match="unreadable"):
        Follower(shop.source, shop.store, build).start()
    good.write_bytes(content)
    Follower(shop.source, shop.store, build).start()
    damage(shop)
    Follower(shop.source, shop.store, build).start()
    assert "unreadable" in read_state(shop.store)["refused"]
    shop.redis = "redis://:sesame@127.0.0.1:1/0"
    with pytest.raises(LlmI2iError, match="Redis failed") as told:
        Follower(shop.source, shop.store, build).start()
    assert "sesame" not in str(told.value) + (shop.store / "state.json").read_text(encoding="utf-8")


def test_a_redis_that_dies_is_told_and_what_was_served_goes_on(shop, lasting_redis, caplog):
    shop.redis = lasting_redis.url
    export_redis(an_index(), {"model": "swing", "arm": "real"}, lasting_redis.url, prefix="p")
    follower = Follower(shop.source, shop.store, build)
    follower.start()
    query = {"history": NAMES[:5], "k": 20}
    with shop.client() as client:
        first, answer = ready(client), client.post("/v1/recommend", json=query).json()["items"]
        lasting_redis.kill()
        follower.update()
        assert "Redis failed" in ready(client)["refused"]
        assert client.post("/v1/recommend", json=query).json()["items"] == answer
        Follower(shop.source, shop.store, build).start()  # a restart meanwhile has its version too
        lasting_redis.start()
        follower.update()
        assert ready(client) == first
        export_redis(an_index(1), {"model": "swing", "arm": "real"}, lasting_redis.url, prefix="p")
        follower.update()
        assert ready(client)["version"] != first["version"]
    assert "Traceback" not in caplog.text


def test_a_full_disk_is_told_and_looked_past(shop, monkeypatch, caplog):
    follower = Follower(shop.source, shop.store, build)
    follower.start()
    shop.write_index(an_index(1))

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    looks = iter([None, None])
    with monkeypatch.context() as patch, shop.client() as client:
        version = ready(client)["version"]
        patch.setattr(building, "time", SimpleNamespace(**vars(time) | {"sleep": lambda _: next(looks)}))
        patch.setattr(files.os, "fsync", full)
        with pytest.raises(StopIteration):
            follower.run(0.0)
        assert "looking for another index failed" in caplog.text
        assert "No space left" in caplog.text
        assert "Traceback" not in caplog.text
        assert ready(client)["version"] == version
    monkeypatch.setattr(building, "RETRY_SECONDS", -1)
    follower.update()
    assert shop.opened().version != version


def test_without_a_version_the_service_is_alive_but_not_ready(shop):
    with shop.client() as client:
        assert client.get("/healthz").status_code == 200
        assert client.get("/readyz").status_code == 503
        assert client.post("/v1/recommend", json={}).status_code == 503
        shop.build()
        ready(client)
        assert client.post("/v1/recommend", json={}).status_code == 200


def test_the_worker_looks_by_itself(shop):
    shop.build()
    with shop.client(seconds=0.01) as client:
        shop.write_index(an_index(1))
        version = shop.build().version
        for _ in range(200):
            if client.get("/readyz").json()["arms"][0]["version"] == version:
                return
            asyncio.run(asyncio.sleep(0.02))
        pytest.fail("never swapped")


def test_no_answer_mixes_two_versions(shop):
    """Every answer during swaps is that of the version it names."""
    expected = {}
    query = {"history": NAMES[:5], "k": 20}
    for seed in (0, 1):
        shop.write_index(an_index(seed))
        version = shop.build().version
        with shop.client() as client:
            expected[version] = client.post("/v1/recommend", json=query).json()["items"]
    assert len(expected) == 2
    answers = []
    with shop.client() as client:
        current = client.app.state.arms

        def ask():
            for _ in range(25):
                batch = client.post("/v1/recommend:batch", json={"queries": [query] * 3}).json()["answers"]
                assert len({found["version"] for found in batch}) == 1
                answers.extend(batch)

        asking = threading.Thread(target=ask)
        asking.start()
        while asking.is_alive():
            for version in expected:
                write_state(shop.store, version=version)
                current.refresh()
        asking.join()
    assert len(answers) == 75
    assert all(found["items"] == expected[found["version"]] for found in answers)
    assert {found["version"] for found in answers} == set(expected)
