# Everything runs in .venv, which `make setup` creates; a second `make` of anything repeats nothing.
.DEFAULT_GOAL := repro
.PHONY: setup data repro report profile sweep bench-ard gpu-check test test-fast lint format lock

VENV := .venv
INSTALLED := $(VENV)/.installed
# The first that runs and is new enough; PYTHON=... overrides.
PYTHON ?= python3.11 python3 python
export PATH := $(CURDIR)/$(VENV)/bin:$(PATH)
unexport PYTHONHOME

setup: $(INSTALLED)  ## create .venv and install the locked packages

# Every package is checked against the hashes of requirements*.lock. PyTorch is its CPU build where pip is set up to find
# one, else the index's. uv installs the rest in a tenth of pip's time; pip does where uv cannot reach what pip can.
HASHED := --quiet --require-hashes --no-deps

$(INSTALLED): pyproject.toml $(wildcard requirements*.lock)
	@python=; for candidate in $(PYTHON); do \
	  if "$$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then python=$$candidate; break; fi; \
	done; \
	if [ -z "$$python" ]; then \
	  echo 'llm-i2i needs Python 3.11 or newer: none of "$(PYTHON)" is. Install one, or run `make PYTHON=/path/to/python`.' >&2; \
	  exit 1; \
	fi; \
	[ -x $(VENV)/bin/python ] || "$$python" -m venv $(VENV)
	$(VENV)/bin/python -m pip install $(HASHED) --no-compile -r requirements-torch-cpu.lock 2>/dev/null \
	  || $(VENV)/bin/python -m pip install $(HASHED) --no-compile -r requirements-torch-cuda.lock
	$(VENV)/bin/python -m pip install $(HASHED) -r requirements-uv.lock
	$(VENV)/bin/uv pip install $(HASHED) --python $(VENV)/bin/python -r requirements.lock \
	  || $(VENV)/bin/python -m pip install $(HASHED) --no-compile -r requirements.lock
	$(VENV)/bin/python -m pip install --quiet --no-deps --no-build-isolation --editable .
	@$(VENV)/bin/python -m compileall -qq -j 0 $(VENV)/lib || : a template is no module
	$(VENV)/bin/python -m pip check
	@touch $@

data: setup  ## put the raw tables into data/: what is there, else from a DVC remote, else MovieLens-100K
	@if ls data/interactions.* >/dev/null 2>&1; then :; \
	elif python -m pipelines mend && [ -n "$$(dvc remote list)" ]; then \
	  dvc pull data.dvc || { echo "data/: the DVC remote did not give it (above): $$(dvc remote list | tr -s '\t\n' '  ')" \
	    '; expected one that can be reached and holds it; mend or remove the remote, or put your tables into data/.' >&2; \
	    exit 1; }; \
	else \
	  python -m llm_i2i.data.movielens --out data && \
	  mkdir -p .dvc/tmp && cp data.dvc .dvc/tmp/data.dvc && dvc add --quiet data && \
	  if [ "$$(grep md5: data.dvc)" != "$$(grep md5: .dvc/tmp/data.dvc)" ]; then \
	    cp .dvc/tmp/data.dvc data.dvc; rm -r data; \
	    echo 'data.dvc describes other data than MovieLens-100K: put its files into data/, or configure its DVC remote.' >&2; \
	    exit 1; \
	  fi; \
	  cp .dvc/tmp/data.dvc data.dvc; \
	fi

repro: data  ## bring every stage up to date, then show the main table
	@python -m pipelines check
	@dvc repro
	@[ -f reports/report.html ] || python -m pipelines report
	@python -m pipelines show

report: setup  ## print the main table and where the report is
	@python -m pipelines show

profile: setup  ## make profile NAME=laptop|ci|compact|gpu|gpu-80gb: write a profile's values into params.yaml
	@python -m pipelines profile $(NAME)

sweep: setup  ## make sweep NAME=threshold: run a declared experiment of experiments/
	@python -m pipelines sweep $(NAME)

# Each option has its default in `python -m pipelines bench`.
BENCH = $(if $(DATASETS),--datasets "$(DATASETS)") $(if $(SEEDS),--seeds "$(SEEDS)") $(if $(PROFILE),--profile "$(PROFILE)") \
  $(if $(EXPERIMENTS),--experiments "$(EXPERIMENTS)") $(if $(filter undefined,$(origin TUNE)),,--tune "$(TUNE)")

bench-ard: setup  ## make bench-ard ARD=FOLDER: docs/results.md on Amazon data (FOLDER/NAME/{interactions,items}.csv)
	@[ -n "$(ARD)" ] || { echo 'make bench-ard ARD=FOLDER [DATASETS=toys,beauty SEEDS=1,2,3 PROFILE=compact]' >&2; exit 1; }
	@python -m pipelines bench --tables "$(ARD)" $(BENCH)

gpu-check: setup  ## prove the GPU path on this machine's GPU; OPTIONS="--device cpu --small" tries every path without one
	@python -m benchmarks.gpu $(OPTIONS)

.PHONY: torture
torture: setup  ## kill the ci profile's run KILLS times (100) within SECONDS (3600); the final hashes must be undisturbed
	@python -m benchmarks.torture $(if $(KILLS),--kills $(KILLS)) $(if $(SECONDS),--seconds $(SECONDS))

.PHONY: faults fuzz
faults: setup  ## let every write fail or be killed, SECONDS (60) a scenario: benchmarks/results/faults.json
	@python -m benchmarks.faults $(if $(SECONDS),--seconds $(SECONDS)) $(if $(SCENARIOS),--scenarios $(SCENARIOS))

fuzz: setup  ## a thousand tables, chat templates, parameters and command lines made up of anything: benchmarks/results/fuzz.json
	@FUZZ_EXAMPLES=1000 FUZZ_RESULTS=benchmarks/results/fuzz.json python -m pytest \
	  tests/llm_i2i/data/test_fuzz.py tests/llm_i2i/data/test_sources.py tests/llm_i2i/test_fuzz.py tests/pipelines/test_fuzz.py \
	  tests/llm_i2i/llm/test_chat.py

.PHONY: same-bytes
same-bytes: data  ## the ci profile in four environments (ZenML on and off; RANK, locale, time zone, a blank in the path): equal hashes
	@python -m benchmarks.environments $(OPTIONS)

test: setup  ## all tests, two at a time
	@python -m pytest -n 2 --dist loadfile --no-loadscope-reorder

.PHONY: update-check
update-check: setup  ## an update for real, from a run of the ci profile on
	@UPDATE_CHECK=1 python -m pytest tests/e2e/test_update.py

test-fast: setup  ## the tests that take seconds, two at a time
	@python -m pytest -m 'not slow' -n 2 --dist loadfile

lint: setup
	ruff check .
	ruff format --check .
	mypy
	lint-imports

format: setup
	ruff check --fix .
	ruff format .

.PHONY: site
site: setup  ## build the documentation into site/, warnings and broken links as errors
	@$(VENV)/bin/python -m pip install $(HASHED) -r requirements-docs.lock
	@NO_MKDOCS_2_WARNING=true python -m mkdocs build --quiet

.PHONY: spark
spark: setup  ## install pyspark (460 MB; needs Java 17 or newer), for `runtime.engine: spark`
	@$(VENV)/bin/python -m pip install $(HASHED) --no-compile --no-build-isolation -r requirements-spark.lock

.PHONY: test-spark
test-spark: spark  ## the tests of the Spark engine, which are skipped elsewhere
	@python -m pytest tests/llm_i2i/spark

.PHONY: graph
graph: setup  ## draw the stages of dvc.yaml into docs/stage-graph.md
	@python -m pipelines.lab.graph

lock: setup  ## pin and hash what pyproject.toml asks for: requirements*.lock
	@python -m pipelines.lab.lock

.PHONY: audit sbom
audit: setup  ## ask the index for known vulnerabilities of what is locked
	@.ci/audit

sbom: setup  ## write dist/sbom.cdx.json: every installed package, as CycloneDX
	@mkdir -p dist
	@cyclonedx-py environment --pyproject pyproject.toml --mc-type library --output-reproducible --output-format JSON \
	  --output-file dist/sbom.cdx.json $(VENV)/bin/python
