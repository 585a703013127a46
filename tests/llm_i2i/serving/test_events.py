import errno
import json
import os
import threading

import pytest

from llm_i2i.errors import ArtifactError, WriteError
from llm_i2i.serving import events as module
from llm_i2i.serving.events import EventLog, read_events, repair

ID = "control.0123456789abcdef.fedcba9876543210.0000000000000000"


def event(number: int) -> dict:
    return {"type": "click", "recommendation_id": ID, "item_id": f"é {number}\n", "timestamp": number + 1}


def stored(folder) -> list[str]:
    return [found["item_id"] for found in read_events(folder)]


def test_batches_are_read_as_they_were_appended(tmp_path):
    log = EventLog(tmp_path)
    log.append([event(0), event(1)])
    log.append([event(2)])
    assert list(read_events(tmp_path)) == [event(n) for n in range(3)]
    (path,) = tmp_path.glob("*.jsonl")
    assert path.read_bytes().count(b"\n") == 2


def test_files_are_rotated_by_size(tmp_path):
    log = EventLog(tmp_path, max_bytes=500)
    for number in range(10):
        log.append([event(number)])
    files = list(tmp_path.glob("*.jsonl"))
    assert len(files) > 2
    assert all(path.stat().st_size <= 500 for path in files)
    assert stored(tmp_path) == [event(n)["item_id"] for n in range(10)]


def test_threads_do_not_mix_lines(tmp_path):
    log = EventLog(tmp_path, max_bytes=5_000)
    threads = [
        threading.Thread(target=lambda first=first: [log.append([event(first + n)] * 3) for n in range(20)])
        for first in range(0, 160, 20)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(stored(tmp_path)) == sorted(event(n)["item_id"] for n in range(160) for _ in range(3))


def test_a_line_is_on_disk_before_append_returns(tmp_path, monkeypatch):
    calls = []
    monkeypatch.setattr(os, "fsync", lambda file: calls.append(os.fstat(file).st_size))
    EventLog(tmp_path).append([event(0)])
    (path,) = tmp_path.glob("*.jsonl")
    assert calls[-1] == path.stat().st_size  # all of it was there to be synced
    assert len(calls) == 2  # and the folder


@pytest.mark.parametrize("failing", ["write", "fsync"])
def test_what_failed_is_taken_back_and_the_next_batch_is_whole(tmp_path, monkeypatch, failing):
    log = EventLog(tmp_path)
    log.append([event(0)])
    write = os.write

    def full(file, *content):
        if content:
            write(file, content[0][:10])
        raise OSError(errno.ENOSPC, "no space")

    with monkeypatch.context() as patch:
        patch.setattr(os, failing, full)
        with pytest.raises(WriteError, match=r"\.jsonl: cannot be written \(no space"):
            log.append([event(1)])
    log.append([event(2)])
    assert stored(tmp_path) == [event(0)["item_id"], event(2)["item_id"]]
    assert all(path.read_bytes().endswith(b"\n") for path in tmp_path.glob("*.jsonl"))


def test_a_torn_last_line_is_passed_over_and_repaired(tmp_path, caplog):
    EventLog(tmp_path).append([event(0)])
    (path,) = tmp_path.glob("*.jsonl")
    whole = path.read_bytes()
    for torn in (b'{"rec', whole[:-1]):
        path.write_bytes(whole + torn)
        assert stored(tmp_path) == [event(0)["item_id"]]
        repair(tmp_path)
        assert path.read_bytes() == whole
        assert f"{len(torn)} bytes of an unfinished line cut off" in caplog.text
    path.write_bytes(b"torn")
    repair(tmp_path)
    assert path.read_bytes() == b""


def test_a_line_that_is_no_batch_is_named(tmp_path):
    with pytest.raises(ArtifactError, match="no such folder"):
        list(read_events(tmp_path / "none"))
    (tmp_path / "1.jsonl").write_bytes(b'{"received": 1, "events": []}\n{"received": 1}\n')
    with pytest.raises(ArtifactError, match=r"1\.jsonl, line 2: is no batch"):
        list(read_events(tmp_path))


def test_over_http(open_shop):
    with open_shop.client() as client:
        told = client.post("/v1/recommend", json={"user_id": "u", "k": 2}).json()
        shown = [
            {"type": "impression", "recommendation_id": told["recommendation_id"], "item_id": item["item_id"]}
            for item in told["items"]
        ]
        bought = shown[0] | {"type": "purchase", "user_id": "u", "timestamp": 1_700_000_000}
        found = client.post("/v1/events", json={"events": [*shown, bought]})
        assert (found.status_code, found.json()) == (200, {"stored": 3})
        kept = list(read_events(open_shop.root / "events"))[-3:]
        assert kept[2] == bought
        assert [{**one, "timestamp": 0} for one in kept[:2]] == [{**one, "timestamp": 0} for one in shown]
        assert kept[0]["timestamp"] > 1_700_000_000
        assert 'llm_i2i_events_total{type="impression"} 2.0' in client.get("/metrics").text


@pytest.mark.parametrize(
    "wrong",
    [
        {"type": "view"}, {"recommendation_id": "x"}, {"recommendation_id": ID + "0"}, {"item_id": "a" * 513},
        {"timestamp": -1}, {"timestamp": 2**53}, {"price": 1}, {"recommendation_id": ID.replace("fed", "FED")},
    ],
)  # fmt: skip
def test_wrong_events_store_nothing(open_shop, wrong):
    good = {"type": "click", "recommendation_id": ID, "item_id": "a"}
    with open_shop.client() as client:
        before = list(read_events(open_shop.root / "events"))
        assert client.post("/v1/events", json={"events": [good, good | wrong]}).status_code == 422
        for n in (0, 1_001):
            assert client.post("/v1/events", json={"events": [good] * n}).status_code == 422
        assert list(read_events(open_shop.root / "events")) == before


def test_a_full_disk_is_told(open_shop, monkeypatch, caplog):
    def full(*_):
        raise OSError(errno.ENOSPC, "no space left on device")

    with open_shop.client() as client:
        monkeypatch.setattr(module.os, "fsync", full)
        body = json.dumps({"events": [{"type": "click", "recommendation_id": ID, "item_id": "a"}]})
        found = client.post("/v1/events", content=body, headers={"Content-Type": "application/json"})
        assert (found.status_code, found.json()) == (503, {"detail": "events cannot be stored"})
    assert "no space left" in caplog.text
    assert "Traceback" not in caplog.text
