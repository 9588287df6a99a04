# Two commands for everybody: `make demo` and `make test`. The others are listed by `make help`.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet install -c constraints.txt

.DEFAULT_GOAL := help
.PHONY: help demo test lint docs lab lab-down test-lab record churn bench clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: $(VENV)/core ## run the main job: collect this host (or take the recorded cloud) and explain it
	@if [ -e /etc/nova ] || [ -e /etc/kolla ] || [ -e /run/libvirt ]; then $(MAKE) --no-print-directory $(VENV)/collect; fi
	@$(BIN)/hoodsnap demo

test: $(VENV)/dev ## run the tests that need neither root nor a cloud
	$(BIN)/pytest -m "not lab"

lint: $(VENV)/dev ## format, lint and type-check without changing anything
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/python docs/generate.py --check

docs: $(VENV)/dev ## write the generated pages of docs/reference and the README's output blocks
	$(BIN)/python docs/generate.py

lab: ## bring up a real single-node OpenStack on this Debian 12 machine (root)
	lab/up.sh
	lab/instances.sh

lab-down: ## stop the lab and remove what it made (root)
	lab/down.sh

test-lab: $(VENV)/lab ## run the tests against the running lab (root)
	$(BIN)/pytest -m lab

record: $(VENV)/lab ## record the healthy lab, each of its faults, and two hosts as fixtures (root, running lab)
	$(BIN)/python fixtures/record.py

churn: $(VENV)/lab ## look for false alarms for ten minutes while guests come and go (root, running lab)
	$(BIN)/python lab/churn.py

bench: $(VENV)/dev ## measure every limit, as ratios in one run
	$(BIN)/python -m bench

clean: ## remove the virtual environment
	rm -rf $(VENV)

# Each mark is a set of packages that is installed; they are made again when what they stand for changes.
$(VENV)/made:
	@echo "making a virtual environment in $(VENV)"
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "hoodsnap needs Python 3.11 or later")'
	@$(PYTHON) -m venv $(VENV)
	@touch $@

$(VENV)/core: $(VENV)/made pyproject.toml constraints.txt
	@echo "installing hoodsnap"
	@$(PIP) -e .
	@touch $@

$(VENV)/collect: $(VENV)/core
	@echo "installing what collecting needs (openstacksdk, PyMySQL, qemu.qmp)"
	@$(PIP) -e '.[collect]'
	@touch $@

$(VENV)/dev: $(VENV)/made pyproject.toml constraints.txt
	@echo "installing hoodsnap and its tests"
	@$(PIP) -e '.[dev,collect]'
	@touch $(VENV)/core $(VENV)/collect $@

$(VENV)/lab: $(VENV)/dev
	@touch $@
