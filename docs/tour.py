"""From raw tables to the neighbours of one item before and after augmentation: `python docs/tour.py [DATA] [OUT]`.

DATA is a folder with interactions.csv and items.csv (default: data), OUT takes the two plots (default: tour). Each
`# %%` begins a cell for editors that know them. It takes a minute or two on the users that it samples.
"""

import sys
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

from llm_i2i import SimilarItems, hold_out, measure, propose
from llm_i2i.params import Params
from llm_i2i.params.reading import read_profile

# %% The raw tables, and a sample of users: the tour is about what happens, not about the last digit.
data, out = (Path(given) for given in [*sys.argv[1:], *("data", "tour")[len(sys.argv) - 1 :]])
out.mkdir(exist_ok=True)
interactions = pd.read_csv(data / "interactions.csv", dtype={"user_id": "str", "item_id": "str"})
items = pd.read_csv(data / "items.csv", dtype="str")
users = pd.Series(interactions["user_id"].unique()).sample(frac=1, random_state=0)[:200]
interactions = interactions[interactions["user_id"].isin(users)]
print(f"{len(interactions):,} interactions of {len(users)} users with {interactions['item_id'].nunique():,} items")

# %% Hold each user's last two items out. Models see what came before.
held = hold_out(interactions, items)
buckets = held.items["bucket"].value_counts()
print(f"{len(held.train):,} training interactions; {buckets.get('tail', 0):,} items have 1 to 5 of them: the tail")

# %% Before: Swing on the real interactions.
before = SimilarItems.fit(held.train, held.items)

# %% A small generator learns what users take next and writes three pairs for each user. No test item is looked at.
settings = read_profile("compact", Path(__file__).parents[1])
settings["synthesize"] |= {"items_per_user": 3, "num_beams": 8, "max_users": 0}
settings["controls"]["compact"] |= {"epochs": 5.0}
settings["encode_text"]["source"] = "tfidf"  # the catalogue's own words: nothing to download
settings["runtime"] |= {"device": "cpu", "threads": 1}
proposed = propose(held, Params.model_validate({**settings, "profile": "compact"}))
titles = held.items.set_index("item_id")["title"]
print("\nPairs that it wrote:")
print(proposed.head(3).assign(title=proposed["item_id"].map(titles))[["user_id", "item_id", "title", "logprob"]])

# %% After: the same Swing on real and generated pairs.
after = SimilarItems.fit(pd.concat([held.train, proposed]), held.items)

# %% One item before and after: the tail item whose list changed most.
pair = ["item_id", "neighbour_id"]
known = pd.MultiIndex.from_frame(before.index[pair])
new = after.index[~pd.MultiIndex.from_frame(after.index[pair]).isin(known)].groupby("item_id").size()
tail = held.items.loc[held.items["bucket"] == "tail", "item_id"]
item = new.reindex(tail).fillna(0).idxmax()
print(f"\n{titles[item]!r}, before:\n{before.similar(item, 5)}\n\nafter:\n{after.similar(item, 5)}")

# %% What it did to the test users. On so few, look at the direction only; docs/results.md has intervals.
found = pd.DataFrame(
    {
        name: {
            "Recall@10": metrics["overall"]["recall@10"],
            "Recall@10, tail": metrics["buckets"]["tail"].get("recall@10", np.nan),
            "reachable": metrics["reachable_share"],
        }
        for name, metrics in (("before", measure(before, held)), ("after", measure(after, held)))
    }
)
print(f"\n{found.round(4)}")
axes = found.plot.bar(rot=0, figsize=(6, 3.5), ylabel="share of test users", title="Before and after")
axes.figure.savefig(out / "metrics.svg", bbox_inches="tight")

# %% How many neighbours an item has, by how often it was bought.
figure, axes = plt.subplots(figsize=(6, 3.5))
counts = held.items.set_index("item_id")["n_train"]
for name, model in (("before", before), ("after", after)):
    sizes = model.index.groupby("item_id").size().reindex(counts.index, fill_value=0)
    mean = sizes.groupby(pd.cut(counts, [-1, 0, 2, 5, 10, 20, 50, np.inf]), observed=True).mean()
    mean.index = ["0" if b.right == 0 else f"{b.left + 1:.0f} or more" if b.right == np.inf else
                  f"{b.left + 1:.0f} to {b.right:.0f}" for b in mean.index]  # fmt: skip
    axes.plot(mean.index, mean, marker="o", label=name)
axes.set(xlabel="training interactions of the item", ylabel="neighbours (mean)", title="Who gets neighbours")
axes.legend()
figure.savefig(out / "neighbours.svg", bbox_inches="tight")
print(f"\nPlots: {out / 'metrics.svg'}, {out / 'neighbours.svg'}")
