"""Item-to-item models, their index, and recommendations from it."""

from llm_i2i.i2i.bm25 import bm25
from llm_i2i.i2i.bpr import bpr
from llm_i2i.i2i.index import from_index, index_sha256, to_index
from llm_i2i.i2i.item_knn import item_knn
from llm_i2i.i2i.popularity import popular_items, popularity
from llm_i2i.i2i.recommend import Recommendations, recommend
from llm_i2i.i2i.swing import swing
from llm_i2i.i2i.train import train_index
from llm_i2i.i2i.user_items import check_user_items, user_items_from_frame
from llm_i2i.i2i.youtube_dnn import youtube_dnn

__all__ = [
    "Recommendations",
    "bm25",
    "bpr",
    "check_user_items",
    "from_index",
    "index_sha256",
    "item_knn",
    "popular_items",
    "popularity",
    "recommend",
    "swing",
    "to_index",
    "train_index",
    "user_items_from_frame",
    "youtube_dnn",
]
