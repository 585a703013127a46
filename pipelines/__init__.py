"""ZenML pipelines: one a DVC stage, `python -m pipelines STAGE`."""
