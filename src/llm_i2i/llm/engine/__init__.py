"""What the LLM roles run on: models, trie, search, batches, training."""
