"""What the LLM roles run on: models, trie, search, batches, training."""

from unittest.mock import patch

import torch

# At import bitsandbytes compiles functions that only a device without its kernels runs, and so loads torch's compiler:
# a quarter of an LLM stage's start-up. Here, before peft imports it, they stay plain.
with patch.object(torch, "compile", lambda function, **_: function):
    import bitsandbytes  # noqa: F401
