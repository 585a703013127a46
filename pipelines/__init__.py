"""ZenML pipelines: one per DVC stage (`python -m pipelines STAGE`) and one of the whole graph (`full`)."""

import sys

if sys.platform == "win32":
    sys.exit("The pipelines run on Linux and macOS; on Windows use WSL. `llm-i2i recommend` and `export` run anywhere.")
