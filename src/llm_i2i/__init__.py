"""LLM-I2I: better training data for item-to-item recommenders, made by a large language model."""
