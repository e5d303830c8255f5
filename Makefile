# One command each: make demo, make test, make check, make peer, make bench, make clean.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
export OMP_NUM_THREADS ?= 1

.PHONY: demo test check bench peer clean

# torch is named beside the project so that one resolver run settles its version.
$(VENV)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt "torch>=2.6,<2.14" --editable ".[dev]"
	@touch $@

demo: $(VENV)/.installed
	$(BIN)/influent demo

test: $(VENV)/.installed
	$(BIN)/python -m pytest

check: $(VENV)/.installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

# What we are measured against lives in an environment of its own; the two talk through files.
.venv-peer/.installed: benchmarks/peer/requirements.txt
	$(PYTHON) -m venv .venv-peer
	.venv-peer/bin/python -m pip install --quiet --requirement benchmarks/peer/requirements.txt
	@touch $@

peer: .venv-peer/.installed

bench: $(VENV)/.installed peer
	$(BIN)/python -m benchmarks.all
	$(BIN)/python -m benchmarks.scale
	$(BIN)/python -m benchmarks.factors
	$(BIN)/python -m benchmarks.drift
	$(BIN)/python -m benchmarks.closing
	$(BIN)/python -m benchmarks.explaining
	$(BIN)/python -m benchmarks.placebo
	$(BIN)/python -m benchmarks.open_bandit
	$(BIN)/python -m benchmarks.faithful
	$(BIN)/python -m benchmarks.yardstick
	$(BIN)/python -m benchmarks.yardstick_sequences
	$(BIN)/python -m benchmarks.planted
	$(BIN)/python -m benchmarks.social
	$(BIN)/python -m benchmarks.social_ranking
	$(BIN)/python -m benchmarks.likeness
	$(BIN)/python -m benchmarks.ties
	$(BIN)/python -m benchmarks.graph
	$(BIN)/python -m benchmarks.effects
	$(BIN)/python -m benchmarks.seeding
	$(BIN)/python -m benchmarks.seeding_cascades
	$(BIN)/python -m benchmarks.cascades
	$(BIN)/python -m benchmarks.tables

clean:
	rm -rf $(VENV) .venv-peer build *.egg-info .mypy_cache .ruff_cache .pytest_cache
