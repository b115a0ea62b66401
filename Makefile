# Everything a person or a CI does here. `make help` lists it.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
READY  := $(VENV)/.ready
JOBS   ?= 2

.PHONY: help setup axe demo test test-all emulated test-emulated check fmt smoke bench docs clean

help:  ## this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## (.*)/  make \1\t\2/' | expand -t 18

setup: $(READY)  ## make the environment in .venv (the only step that needs the network)

$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Edgekit needs Python 3.11 or later (set PYTHON=...)"; exit 3; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	$(BIN)/python -m compileall -q $(VENV)/lib toolkit || true
	@touch $@

AXE         := 4.14.1
AXE_SHA256  := 29348999450cdf2849a8e70b7912fc2da85a849da39c0d0d5394f51d4a9ed95c

axe: setup  ## fetch axe-core, which the report's tests look at the page with (needs npm)
	npm install --silent --no-save --no-audit --no-fund --ignore-scripts --prefix $(VENV)/axe axe-core@$(AXE)
	@echo "$(AXE_SHA256)  $(VENV)/axe/node_modules/axe-core/axe.min.js" | sha256sum --check --quiet || { rm -rf $(VENV)/axe; exit 1; }

demo: setup  ## train the demo CNN on real digits, compress it, measure it, judge it
	$(BIN)/python examples/train_digits.py --out build/digits.keras
	$(BIN)/edgekit run recipes/digits-demo.toml --model build/digits.keras

test: setup  ## the quick tests
	$(BIN)/python -m pytest -n $(JOBS) --dist loadfile -m "not slow and not gpu and not device and not emulated"

test-all: setup  ## every test that can run on this machine; the others say why they are skipped
	$(BIN)/python -m pytest -n $(JOBS) --dist loadfile -rs

emulated: setup  ## make the emulated Raspberry Pi (once; root, the network, Debian's mmdebstrap and qemu-user-static)
	$(BIN)/python -m tests.emulated.pi build

test-emulated: emulated  ## the tests on the emulated Raspberry Pi
	$(BIN)/python -m pytest -rs -m emulated

check: setup  ## format, lint and types
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

fmt: setup  ## format in place
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

smoke: setup  ## the wheel in a bare environment: it installs, lists, checks and runs
	sh tests/smoke.sh $(PYTHON)

bench: setup  ## the benchmarks, each a ratio against a named alternative
	@for file in benchmarks/*.py; do echo "== $$file"; $(BIN)/python $$file || exit 1; done

docs: setup  ## write the generated parts of docs/ anew (tests fail while they are stale)
	$(BIN)/python docs/generate.py

clean:  ## remove what was made here, the environment included
	rm -rf $(VENV) build dist runs *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
