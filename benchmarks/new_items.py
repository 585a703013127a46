"""Does a new item get neighbours of its own kind on its first day? Agreement of categories, against chance.

    python benchmarks/new_items.py FOLDER [--new 500]

FOLDER holds interactions.csv and items.csv with a title and attributes: numbers of categories (and brand), separated by
blanks. A seeded sample of items loses all interactions; Swing is trained without them, and the service's chain is asked
for each one's ten neighbours, which come from the TF-IDF vectors of the titles. Two items agree if they share an
attribute that fewer than half of the items have.
"""

import argparse
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd
from serve import record

from llm_i2i.i2i import swing, to_index, user_items_from_frame
from llm_i2i.llm.text_vectors import encode_items
from llm_i2i.params import Params, read_profile
from llm_i2i.serving.chain import answer
from llm_i2i.serving.flat import FlatIndex
from llm_i2i.serving.messages import Query
from llm_i2i.serving.write import Content, write_version

K = 10


def catalogue(folder: Path) -> pd.DataFrame:
    raw = pd.read_csv(folder / "items.csv", dtype=str, keep_default_na=False).sort_values("item_id", ignore_index=True)
    return raw.assign(text=raw["title"], n_train=0, bucket="mid", is_long_tail=False)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--new", type=int, default=500)
    options = parser.parse_args()
    items = catalogue(options.folder)
    taken = pd.read_csv(options.folder / "interactions.csv", dtype=str, usecols=["user_id", "item_id"])
    rng = np.random.default_rng(0)
    new = rng.choice(len(items), options.new, replace=False)
    taken = taken[~taken["item_id"].isin(items["item_id"][new])]
    items["n_train"] = items["item_id"].map(taken["item_id"].value_counts()).fillna(0).astype("int64")
    index = to_index(swing(user_items_from_frame(taken.assign(weight=1.0), items), top_k=100), items)
    params = Params.model_validate(read_profile("laptop"))
    vectors, _ = encode_items(items, params.encode_text, runtime=params.runtime, downloads=Path(".downloads"))
    served = items.drop(columns="attributes")
    with tempfile.TemporaryDirectory() as versions:
        name = write_version(Content(index, {"model": "swing"}, served, vectors), Path(versions))
        flat = FlatIndex(Path(versions) / name)
        answers = [answer(flat, Query(history=[items["item_id"][place]], k=K))["items"] for place in new]
    kinds = [set(text.split()) for text in items["attributes"]]
    common = {kind for kind, n in pd.Series([k for found in kinds for k in found]).value_counts().items()
              if 2 * n > len(items)}  # fmt: skip
    kinds = [found - common for found in kinds]
    place_of = dict(zip(items["item_id"], range(len(items)), strict=True))
    agreed = [
        bool(kinds[place] & kinds[place_of[item["item_id"]]])
        for place, found in zip(new, answers, strict=True)
        for item in found
    ]
    chance = [bool(kinds[place] & kinds[other]) for place in new for other in rng.choice(len(items), 200)]
    by_text = sum(item["source"] == "text" for found in answers for item in found)
    full = sum(len(found) == K for found in answers)
    print(f"{len(new):,} new items of {len(items):,}: {full:,} get {K} neighbours, {by_text / len(agreed):.1%} by text")
    ratio = np.mean(agreed) / np.mean(chance)
    print(f"category agrees: {np.mean(agreed):.3f}, by chance {np.mean(chance):.3f}, ratio {ratio:.1f}")
    record("new_items", {
        "data": options.folder.name, "new": len(new), "with_all_neighbours": full,
        "by_text": round(by_text / len(agreed), 3), "agree": round(float(np.mean(agreed)), 3),
        "agree_by_chance": round(float(np.mean(chance)), 3), "ratio": round(float(ratio), 2),
    })  # fmt: skip


if __name__ == "__main__":
    main()
