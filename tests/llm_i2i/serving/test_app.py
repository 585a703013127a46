import json

import pytest
from fastapi.testclient import TestClient
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter

from llm_i2i.serving import app as application
from llm_i2i.serving.chain import answer
from llm_i2i.serving.messages import MAX_BODY_BYTES, MAX_K, Answer, Query
from tests.llm_i2i.serving.conftest import N_ITEMS, NAMES

FIELDS = st.sampled_from(["history", "user_id", "k", "exclude", "filters", "category"])


@pytest.fixture(scope="module")
def client(open_shop):
    with open_shop.client() as client:
        yield client


def test_recommend_is_the_chains_answer(open_shop, client):
    query = {"history": NAMES[:3], "k": 7, "user_id": "u", "filters": {"category": ["dolls"]}}
    told = client.post("/v1/recommend", json=query)
    assert told.status_code == 200
    ranked = answer(open_shop.opened(), Query(**query))
    assert told.json() == ranked | {
        "user_id": "u",
        "arm": "real",
        "recommendation_id": told.json()["recommendation_id"],
    }


def test_a_batch_is_answered_in_order(client):
    queries = [{"history": [name], "k": k} for k, name in enumerate(NAMES[:5], start=1)]
    told = client.post("/v1/recommend:batch", json={"queries": queries}).json()["answers"]
    assert [a["items"] for a in told] == [client.post("/v1/recommend", json=q).json()["items"] for q in queries]
    assert len({a["recommendation_id"] for a in told}) == 5


def test_similar_items(client):
    told = client.get(f"/v1/items/{NAMES[3]}/similar", params={"k": 4}).json()
    assert told["items"] == client.post("/v1/recommend", json={"history": [NAMES[3]], "k": 4}).json()["items"]
    assert client.get("/v1/items/nothing/similar").status_code == 404
    assert client.get(f"/v1/items/{'a' * 513}/similar").status_code == 422
    assert client.get(f"/v1/items/{NAMES[3]}/similar", params={"l": 4}).status_code == 422


def test_the_catalogue_is_searched(client):
    told = client.get("/v1/items", params={"title": "I 007"}).json()
    assert told == {
        "items": [
            {"item_id": NAMES[7], "title": NAMES[7], "category": "puzzles", "bucket": "mid", "is_long_tail": False}
        ]
    }
    assert len(client.get("/v1/items").json()["items"]) == 20
    asked = {"item_id": [NAMES[9], "unheard of", NAMES[2]]}
    assert [item["item_id"] for item in client.get("/v1/items", params=asked).json()["items"]] == [NAMES[9], NAMES[2]]
    assert client.get("/v1/items", params={"item_id": ["a"] * 101}).status_code == 422
    assert len(client.get("/v1/items", params={"title": "i", "limit": 3}).json()["items"]) == 3
    for wrong in ({"limit": 0}, {"limit": 101}, {"title": "a" * 513}, {"text": "a"}):
        assert client.get("/v1/items", params=wrong).status_code == 422


def test_facts_of_the_index(client):
    (told,) = client.get("/v1/index").json()["arms"]
    assert told["manifest"]["model"] == "swing"
    assert len(told["manifest"]["content_sha256"]) == 64
    assert "git_revision" in told["manifest"]
    assert told["columns"] == ["bucket", "is_long_tail", "category"]
    assert told["n_items"] == N_ITEMS


@pytest.mark.parametrize(
    ("body", "told"),
    [
        ({"histroy": []}, "body.histroy: Extra inputs are not permitted"),
        ({"k": 0}, "body.k"),
        ({"k": MAX_K + 1}, "body.k"),
        ({"k": None}, "body.k"),
        ({"history": ["a"] * 1_001}, "body.history"),
        ({"history": ["a" * 513]}, "body.history.0"),
        ({"history": "abc"}, "body.history"),
        ({"exclude": [1]}, "body.exclude.0"),
        ({"filters": {f"c{n}": [] for n in range(17)}}, "body.filters"),
        ({"filters": {"category": "dolls"}}, "body.filters.category"),
        ({"filters": {"colour": ["red"]}}, "filters: no column 'colour'"),
        ({"a" * 5_000: 1}, "body.aaa"),
        ([], "body"),
    ],
)
def test_a_wrong_query_is_refused_with_its_place(client, body, told):
    found = client.post("/v1/recommend", json=body)
    assert found.status_code == 422
    assert found.json()["detail"].startswith(told)
    batch = client.post("/v1/recommend:batch", json={"queries": [{}, body]})
    assert batch.status_code == 422
    assert set(batch.json()) == {"detail"}


def test_a_method_not_allowed_names_those_that_are(client):
    found = client.get("/v1/recommend")
    assert (found.status_code, found.headers["Allow"]) == (405, "POST")


@pytest.mark.parametrize("n", [0, 101])
def test_a_batch_has_a_size(client, n):
    assert client.post("/v1/recommend:batch", json={"queries": [{}] * n}).status_code == 422


@pytest.mark.parametrize(
    "body", [b"", b"{", b"\xff", b'{"user_id": "\\ud800"}', b'{"\\ud800": 1}', b'{"k": NaN}', b"[" * 2_000]
)
def test_what_is_no_query_at_all_is_refused(client, body):
    found = client.post("/v1/recommend", content=body, headers={"Content-Type": "application/json"})
    assert found.status_code in (400, 422)
    assert set(found.json()) == {"detail"}


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.sampled_from(NAMES[:3]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text() | FIELDS, inner, max_size=3),
    max_leaves=6,
)


@settings(max_examples=40, deadline=None)
@given(query=st.dictionaries(FIELDS, JSON, max_size=3))
def test_no_query_at_all_makes_the_service_fail(client, query):
    told = client.post("/v1/recommend", content=json.dumps(query), headers={"Content-Type": "application/json"})
    assert told.status_code in (200, 422)
    if told.status_code == 200:
        TypeAdapter(Answer).validate_json(told.content, strict=True)


@pytest.mark.parametrize("kind", [None, "text/plain", "application/xml"])
def test_a_body_of_another_kind_is_refused(client, kind):
    for path in ("recommend", "recommend:batch"):
        headers = {"Content-Type": kind} if kind else {}
        assert client.post(f"/v1/{path}", content=b'{"queries": [{}]}', headers=headers).status_code == 422
    assert client.post("/v1/recommend", content=b"{}", headers={"Content-Type": "application/JSON; a=b"}).is_success


@pytest.mark.parametrize("chunked", [False, True])
def test_a_body_too_large_is_refused(client, chunked):
    content = b" " * (MAX_BODY_BYTES + 1)
    found = client.post("/v1/recommend", content=iter([content]) if chunked else content)
    assert found.status_code == 413
    fits = json.dumps({"k": 1}).encode().ljust(MAX_BODY_BYTES)
    headers = {"Content-Type": "application/json"}
    assert client.post("/v1/recommend", content=fits, headers=headers).status_code == 200


def test_an_error_of_ours_is_no_traceback_for_the_client(client, monkeypatch, caplog):
    def fail(*_):
        raise RuntimeError("secret")

    monkeypatch.setattr(application, "answer", fail)
    found = client.post("/v1/recommend", json={})
    assert (found.status_code, found.json()) == (500, {"detail": "internal error"})


def test_the_key_is_asked_for_under_v1_alone(open_shop):
    with open_shop.client(api_key="sésame") as client:
        for given in ({}, {"X-API-Key": ""}, {"X-API-Key": "wrong"}, {"X-API-Key": b"s\xff"}):
            for path in ("recommend", "recommend:batch"):
                assert client.post(f"/v1/{path}", json={"no": 1}, headers=given).status_code == 401
            assert client.get("/v1/index", headers=given).status_code == 401
        right = {"X-API-Key": "sésame".encode()}
        assert client.post("/v1/recommend", json={}, headers=right).status_code == 200
        for path in ("healthz", "readyz", "metrics", "openapi.json"):
            assert client.get(f"/{path}").status_code == 200


def test_metrics_tell_routes_statuses_and_sources(open_shop):
    with open_shop.client() as client:
        client.post("/v1/recommend", json={"k": 7})
        client.post("/v1/recommend", json={"k": 0})
        client.get("/no/such/page")
        text = client.get("/metrics").text
    assert 'llm_i2i_request_seconds_count{route="/v1/recommend",status="200"} 1.0' in text
    assert 'llm_i2i_request_seconds_count{route="/v1/recommend",status="422"} 1.0' in text
    assert 'llm_i2i_request_seconds_count{route="other",status="404"} 1.0' in text
    assert 'llm_i2i_items_total{arm="real",source="popularity"} 7.0' in text
    assert 'llm_i2i_swaps_total{outcome="loaded"} 1.0' in text


def test_openapi_says_what_is_served(client):
    document = client.get("/openapi.json").json()
    v1 = {path for path in document["paths"] if path.startswith("/v1/")}
    assert v1 == {
        "/v1/recommend",
        "/v1/recommend:batch",
        "/v1/items",
        "/v1/items/{item_id}/similar",
        "/v1/index",
        "/v1/events",
    }
    query = document["components"]["schemas"]["Query"]
    assert query["additionalProperties"] is False
    assert query["properties"]["k"]["maximum"] == MAX_K
    recommend = document["paths"]["/v1/recommend"]["post"]
    asked = recommend["requestBody"]["content"]["application/json"]["schema"]
    told = recommend["responses"]["200"]["content"]["application/json"]["schema"]
    assert (asked, told) == ({"$ref": "#/components/schemas/Query"}, {"$ref": "#/components/schemas/Answer"})
    refused = recommend["responses"]["422"]
    assert refused["content"]["application/json"]["schema"] == {"$ref": "#/components/schemas/Problem"}
    assert client.get("/docs").status_code == 404


def test_from_environment_reads_the_key_file(open_shop, tmp_path, monkeypatch):
    key = tmp_path / "key"
    key.write_text("sesame\n", encoding="utf-8")
    arm = {"stores": {"real": str(open_shop.store)}, "shares": {"real": 1}}
    settings = {**arm, "events": str(tmp_path), "api_key_file": str(key)}
    monkeypatch.setenv(application.SETTINGS, json.dumps(settings))
    with TestClient(application.from_environment()) as client:
        assert client.get("/v1/index").status_code == 401
        assert client.get("/v1/index", headers={"X-API-Key": "sesame"}).status_code == 200
