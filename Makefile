# Two commands do everything: `make run` and `make test`.

PYTHON ?= $(shell command -v python3.11 || command -v python3.12 || command -v python3)
BIN := .venv/bin
# Where a .env exists its values count for dbt too, which does not read it itself;
# what is set in the environment wins.
WITH_ENV := $(if $(wildcard .env),$(BIN)/dotenv -f .env run --no-override --)
DBT := $(WITH_ENV) $(BIN)/dbt
PY := $(WITH_ENV) $(BIN)/python

# dbt's own words, with a line for every fortieth step instead of two for each.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
# Unit tests are about the SQL, not about the data: `make test` runs them.
BUILD := $(DBT) --no-use-colors build --exclude-resource-type unit_test
BRIEFLY := | awk '/ of [0-9]+ (START|PASS|OK|SKIP|NO-OP)/ { if (/START/ && ++n % 40 == 0) { print "      step " $$2 " of " $$4; fflush() } next } { print; fflush() }'

LOCK := uv pip compile --universal --generate-hashes --no-strip-extras --no-header --no-annotate --python-version 3.11 --quiet
# Of `make bench`: millions of events, and GB of memory for each command.
SIZES ?= 1,10,100
MEMORY ?= 6

export DBT_SEND_ANONYMOUS_USAGE_STATS := false
.DEFAULT_GOAL := help

.PHONY: help
help: ## Show what there is
	@grep -E '^[a-z]+:.*##' Makefile | sed -E 's/:.*## /\t/' | expand -t 12

.PHONY: install
install: .venv/installed ## Make the environment from the lock file

.venv/installed: requirements.lock
	@command -v $(PYTHON) > /dev/null || { echo "Python 3.11 or 3.12 is needed; set PYTHON to it."; exit 1; }
	@echo "[install] environment in .venv (a minute or two)"
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock
	@touch .venv/installed

.PHONY: spark
spark: .venv/spark-installed ## Add Spark to the environment (500 MB; needs Java 17)

.venv/spark-installed: .venv/installed requirements-spark.lock
	@echo "[install] Spark (a minute or two)"
	$(BIN)/pip install --quiet --disable-pip-version-check --require-hashes -r requirements-spark.lock
	@touch .venv/spark-installed

.PHONY: run
run: install ## Sample data (or yours) to flags, drafts, report and snapshot
	@echo "[1/7] dbt build: raw data to targets and features"
	@mkdir -p data
	@$(BUILD) $(BRIEFLY)
	@echo "[2/7] train and score"
	@$(PY) -m ml.train
	@echo "[3/7] dbt build: scores to flagged students"
	@$(BUILD) --select source:ml+ $(BRIEFLY)
	@echo "[4/7] draft messages"
	@$(PY) -m intervene draft
	@$(BUILD) --select marts.interventions $(BRIEFLY)
	@echo "[5/7] reports: the model, the messages"
	@$(PY) -m ml.report
	@$(PY) -m intervene report
	@echo "[6/7] publish the snapshot"
	@$(PY) -m ml.publish
	@echo "[7/7] summary"
	@$(PY) -m ml.summary

.PHONY: publish
publish: install ## Publish for BI tools: files, or TARGET=postgres
	@$(PY) -m ml.publish $(if $(TARGET),--target $(TARGET))

.PHONY: test
test: spark ## Everything that checks
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python -m pytest

.PHONY: bench
bench: install ## Measure speed and memory, write docs/performance.md (hours; SIZES=1,10 is shorter)
	$(BIN)/python -m tests.bench.scale --sizes $(SIZES) --memory $(MEMORY)
	$(BIN)/python -m pytest -m bench -n 0

.PHONY: lock
lock: ## Pin the newest versions that pyproject.toml allows (needs uv)
	$(LOCK) --extra dev --upgrade pyproject.toml -o requirements.lock
	sed -E '/^ +--hash/d; s/ \\$$//' requirements.lock > .venv/pins.txt
	$(LOCK) --extra dev --extra spark --constraint .venv/pins.txt pyproject.toml -o requirements-spark.lock

.PHONY: clean
clean: ## Remove what the pipeline made (data/, target/, logs/), not .venv
	rm -rf target logs data/warehouse.duckdb* data/spark data/models data/published data/intervene.sqlite* data/report* data/messages.html
