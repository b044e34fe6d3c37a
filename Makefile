# Everything happens in .venv, made by the first target that needs it. `make help` lists the targets.

# A Python of 3.11 or later; left out, the first one found that can make environments.
PYTHON ?=
# Flags for installing torch. PyPI's build for Linux brings gigabytes of CUDA; the CPU build is here:
#   make test TORCH_FLAGS="--index-url https://download.pytorch.org/whl/cpu"
TORCH_FLAGS ?=
# Flags for every pip command: --quiet, or "" to see what it does.
PIP_FLAGS ?= --quiet
# How long `make fuzz` goes on.
MINUTES ?= 60
# Flags for pytest, and what it is to run: make test PYTEST_FLAGS="-x tests/graph"

# Tests that time nothing run two at once; all others have the machine to themselves.
TOGETHER := $(addprefix tests/,coding compress data export graph host models package report scheduling serve tasks wire test_checkpoint.py test_docs.py test_house.py \
	test_recipe.py test_records.py test_rows.py test_tflite.py test_train.py test_tuning.py)

# edgewise keeps its engines from reporting home; this does it for whatever imports ONNX Runtime past edgewise, such as a benchmark's peer.
export ORT_DISABLE_TELEMETRY := 1

BIN := .venv/bin
STAMP := .venv/installed
PIP := $(BIN)/python -m pip install --disable-pip-version-check $(PIP_FLAGS)

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help demo test check fuzz format clean

help: ## this list
	@sed -n 's/^\([a-z]*\):.*## \(.*\)/  make \1|\2/p' $(MAKEFILE_LIST) | column -t -s '|' 2>/dev/null || sed -n 's/^\([a-z]*\):.*## /  make \1: /p' $(MAKEFILE_LIST)

demo: $(STAMP) ## train a small digit reader, fit it to this machine, write out/report.html (3 minutes after the install)
	$(BIN)/edgewise demo

test: check ## format, lint, types, then the whole suite
	@export OMP_NUM_THREADS=1; failed=0; \
	if [ -n "$(PYTEST_FLAGS)" ]; then \
		$(BIN)/python -m pytest $(PYTEST_FLAGS) || failed=1; \
	else \
		$(BIN)/python -m pytest -n 2 --dist loadfile $(TOGETHER) || failed=1; \
		$(BIN)/python -m pytest $(addprefix --ignore=,$(TOGETHER)) || failed=1; \
	fi; \
	exit $$failed

check: $(STAMP) ## format, lint and types, without changing anything
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

fuzz: $(STAMP) ## damage packages and updates for MINUTES (60), guided by coverage; what fails is kept in out/faults
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/faults.py --minutes $(MINUTES)

format: $(STAMP) ## put the code into the one format, and mend what the linter can mend
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

clean: ## remove the environment, caches and build products
	rm -rf .venv .pytest_cache .mypy_cache .ruff_cache .hypothesis build dist src/edgewise.egg-info src/edgewise/coding/*.so src/edgewise/serve/*.so
	find src tests examples benchmarks -name __pycache__ -type d -prune -exec rm -rf {} +

# The install compiles the hot loops of edgewise.coding and edgewise.serve where there is a C compiler, and goes on without them where there is none.
# torch comes first and alone, so that TORCH_FLAGS can say from where; its version is pinned with all others.
$(STAMP): pyproject.toml constraints.txt $(wildcard src/edgewise/coding/native/*.[ch] src/edgewise/serve/native/*.c)
	@set -e; \
	if [ ! -x $(BIN)/python ]; then \
		for python in $(or $(PYTHON),python3 python3.13 python3.12 python3.11 python3.14 python); do \
			if "$$python" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then found="$$python"; break; fi; \
		done; \
		if [ -z "$${found:-}" ]; then \
			echo "No Python that will do: edgewise needs Python 3.11 or later with venv and ensurepip (on Debian: apt install python3-venv)." >&2; \
			echo "Tried: $(or $(PYTHON),python3 python3.13 python3.12 python3.11 python3.14 python). Name yours: make PYTHON=/path/to/python3" >&2; \
			exit 1; \
		fi; \
		echo "Making .venv with $$found ($$("$$found" -V))"; \
		"$$found" -m venv .venv; \
	fi
	@echo "Installing what constraints.txt pins (the first time takes some minutes)"
	$(PIP) $(TORCH_FLAGS) "$$(grep '^torch==' constraints.txt)"
	$(PIP) -c constraints.txt -e '.[workshop,openvino,demo,dev]'
	@touch $@
