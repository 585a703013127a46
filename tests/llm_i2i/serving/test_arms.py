import re
from argparse import Namespace
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_i2i.errors import LlmI2iError
from llm_i2i.serving.arms import Split
from llm_i2i.serving.server import _arms
from tests.llm_i2i.serving.conftest import NAMES, a_shop, an_index, ready

USERS = [f"user {n}" for n in range(4_000)]


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    """A shop whose arms control and treatment have other indexes; arm shown answers only who asks for it."""
    stores = {}
    for seed, name in enumerate(("control", "treatment")):
        shop = a_shop(tmp_path_factory.mktemp(name))
        shop.write_index(an_index(seed))
        shop.build()
        stores[name] = str(shop.store)
    shares = {"shown": 0.0, "control": 0.5, "treatment": 0.5}
    with shop.client(stores={**stores, "shown": stores["treatment"]}, shares=shares, salt="s") as client:
        yield client


@pytest.mark.parametrize("shares", [{"a": 0.5, "b": 0.5}, {"a": 0.1, "b": 0.7, "c": 0.2}, {"n": 0, "a": 1}])
def test_arms_get_their_shares(shares):
    found = Counter(Split(shares, "salt").of(user)[0] for user in USERS)
    for name, share in shares.items():
        assert abs(found[name] - share * 4_000) <= 5 * (4_000 * share * (1 - share)) ** 0.5


def test_the_split_depends_on_user_and_salt_alone():
    shares = {"a": 0.5, "b": 0.5}
    one, again, other = ([Split(shares, salt).of(user) for user in USERS] for salt in ("x", "x", "y"))
    assert one == again
    assert 1_800 < sum(a[0] == b[0] for a, b in zip(one, other, strict=True)) < 2_200
    assert len({unit for _, unit in one}) == 4_000
    assert not {unit for _, unit in one} & {unit for _, unit in other}


@given(user=st.text(st.characters()), share=st.floats(0.01, 0.98))
def test_growing_a_share_takes_users_from_the_other_arm_alone(user, share):
    before, after = Split({"a": share, "b": 1 - share}), Split({"a": share + 0.01, "b": 0.99 - share})
    assert (before.of(user)[0], after.of(user)[0]) != ("a", "b")


def test_every_answer_names_arm_version_and_recommendation(two):
    versions = {told["arm"]: told["version"] for told in two.get("/v1/index").json()["arms"]}
    seen = set()
    for user in USERS[:40]:
        told = two.post("/v1/recommend", json={"user_id": user, "history": NAMES[:2]}).json()
        again = two.get(f"/v1/items/{NAMES[0]}/similar", params={"user_id": user}).json()
        assert told["arm"] == again["arm"]
        assert told["version"] == versions[told["arm"]]
        arm, version, unit, nonce = told["recommendation_id"].split(".")
        assert (arm, version) == (told["arm"], told["version"])
        assert unit == again["recommendation_id"].split(".")[2]
        assert re.fullmatch("[0-9a-f]{16}", unit)
        seen |= {arm, nonce}
    assert {"control", "treatment"} <= seen
    assert len(seen) == 42


def test_without_a_user_the_first_arm_and_the_chosen_arm_on_request(two):
    nobody = two.post("/v1/recommend", json={}).json()
    assert (nobody["arm"], nobody["recommendation_id"].split(".")[2]) == ("control", "none")
    for arm in ("control", "treatment", "shown"):
        for told in (
            two.post("/v1/recommend", json={"arm": arm, "user_id": "u", "history": [NAMES[4]]}).json(),
            two.get(f"/v1/items/{NAMES[4]}/similar", params={"arm": arm}).json(),
        ):
            assert (told["arm"], told["recommendation_id"].split(".")[2]) == (arm, "chosen")
    lists = [
        two.get(f"/v1/items/{NAMES[4]}/similar", params={"arm": arm}).json()["items"] for arm in ("control", "shown")
    ]
    assert lists[0] != lists[1]
    assert two.post("/v1/recommend", json={"arm": "other"}).json() == {
        "detail": "arm: no arm 'other'; expected one of control, treatment, shown"
    }


def test_a_batch_may_be_answered_by_several_arms(two):
    queries = [{"user_id": user} for user in USERS[:20]]
    told = two.post("/v1/recommend:batch", json={"queries": queries}).json()["answers"]
    assert [a["arm"] for a in told] == [two.post("/v1/recommend", json=query).json()["arm"] for query in queries]
    assert len({a["arm"] for a in told}) == len({a["version"] for a in told}) == 2


def test_the_arms_are_listed(two):
    told = two.get("/v1/index").json()["arms"]
    assert [(arm["arm"], arm["share"]) for arm in told] == [("control", 0.5), ("treatment", 0.5), ("shown", 0.0)]


def test_ready_needs_the_arms_that_users_get(shop):
    stores = {"control": str(shop.store), "treatment": str(shop.root / "none"), "shown": str(shop.root / "none")}
    shop.build()
    for share, status in ((0.5, 503), (0.0, 200)):
        shares = {"control": 1 - share, "treatment": share, "shown": 0.0}
        with shop.client(stores=stores, shares=shares) as client:
            assert ready(client)["ready"] == (status == 200)
            assert client.get("/readyz").status_code == status
            assert client.post("/v1/recommend", json={}).status_code == 200
            assert client.post("/v1/recommend", json={"arm": "treatment"}).status_code == 503


def given_options(**changes) -> Namespace:
    tables = {"prefix": "p", "artifacts": "runs", "half_life": 90, "catalogue": "", "vectors": "", "public_key": ""}
    return Namespace(**{"index": None, "arm": None, "split": "", **tables} | changes)


@pytest.mark.parametrize(
    ("split", "shares"), [("", [0.5, 0.5]), ("90:10", [0.9, 0.1]), ("1:3", [0.25, 0.75]), ("1:0", [1, 0])]
)
def test_arms_of_the_command_line(split, shares):
    sources, found = _arms(given_options(arm=["a=x/y=z", "b=redis://h/0"], split=split))
    assert {name: source.index for name, source in sources.items()} == {"a": "x/y=z", "b": "redis://h/0"}
    assert list(found.values()) == shares


@pytest.mark.parametrize(
    ("arms", "split", "told"),
    [
        (["a"], "", "--arm"), (["=x"], "", "--arm"), (["a.b=x"], "", "--arm"), (["a=x", "a=y"], "", "--arm"),
        (["a=x", "b=y"], "50", "--split"), (["a=x", "b=y"], "1:x", "--split"), (["a=x", "b=y"], "0:0", "--split"),
        (["a=x", "b=y"], "2:-1", "--split"), (["a=x"], "inf", "--split"), (["a=x"], "nan", "--split"),
    ],
)  # fmt: skip
def test_arms_that_make_no_sense(arms, split, told):
    with pytest.raises(LlmI2iError, match=told):
        _arms(given_options(arm=arms, split=split))


def test_an_index_is_shown_beside_arm_real(tmp_path):
    (tmp_path / "i2i" / "swing-real").mkdir(parents=True)
    index = str(tmp_path / "i2i" / "swing-llm_i2i")
    sources, shares = _arms(given_options(index=index, artifacts=str(tmp_path)))
    assert {name: source.index for name, source in sources.items()} == {
        "llm_i2i": index, "real": str(tmp_path / "i2i" / "swing-real")
    }  # fmt: skip
    assert shares == {"llm_i2i": 1, "real": 0}
    for alone in (str(tmp_path / "i2i" / "swing-real"), "redis://h/0"):
        assert len(_arms(given_options(index=alone, artifacts=str(tmp_path)))[0]) == 1
