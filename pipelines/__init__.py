"""ZenML pipelines: one a DVC stage, `python -m pipelines STAGE`, and `full`: the whole graph as one."""
