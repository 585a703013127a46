"""ZenML pipelines: one per DVC stage (`python -m pipelines STAGE`) and one of the whole graph (`full`)."""
