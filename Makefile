# Two commands for everybody: `make demo` and `make test`. The others are listed by `make help`.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet install -c constraints.txt

HASHED := --disable-pip-version-check --quiet install --require-hashes
# A committed file names neither the source of the packages nor the path of this checkout.
COMPILE := $(VENV)/release/bin/pip-compile --quiet --generate-hashes --allow-unsafe --strip-extras --annotation-style=line \
	--no-header --no-emit-index-url --no-emit-find-links --no-emit-trusted-host -c constraints.txt

.DEFAULT_GOAL := help
.PHONY: help demo test lint docs site lab lab-down test-page test-lab test-freeze remedies test-tools record churn bench census census-verify fuzz requirements dist test-dist sbom clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: $(VENV)/core ## collect this host (or take the recorded cloud) and explain it
	@if [ -e /etc/nova ] || [ -e /etc/kolla ] || [ -e /run/libvirt ]; then $(MAKE) --no-print-directory $(VENV)/collect; fi
	@$(BIN)/hoodsnap demo

test: $(VENV)/dev ## run the tests that need neither root nor a cloud
	$(BIN)/pytest -n logical -m "not lab and not freeze and not remedies and not tools and not page"

lint: $(VENV)/dev ## check formatting, style, imports, spelling, types and generated pages; change nothing
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/lint-imports --no-cache
	$(BIN)/codespell
	$(BIN)/mypy
	$(BIN)/python docs/generate.py --check
	$(BIN)/python docs/wording.py

docs: $(VENV)/dev ## write the generated pages of docs/reference and the README's output blocks
	$(BIN)/python docs/generate.py

site: $(VENV)/site ## build build/site, the documentation with a search; it loads nothing from elsewhere
	$(PYTHON) docs/pages.py
	$(VENV)/site/bin/mkdocs build --quiet --strict -f docs/mkdocs.yml
	@! grep -rnE '<(script|link|img|iframe)[^>]+(src|href)="?(https?:)?//' --include=*.html build/site
	@echo "to read it: python3 -m http.server -d build/site"

lab: ## bring up a real single-node OpenStack on this Debian 12 machine (root)
	lab/up.sh
	lab/instances.sh

lab-down: ## stop the lab and remove what it made (root)
	lab/down.sh

test-page: $(VENV)/page ## test the page of explain --format html in Chromium (apt-get install chromium)
	$(BIN)/pytest -m page tests/render/html

test-lab: $(VENV)/lab ## run the tests against the running lab (root; makes an account mallory, which attacks)
	@id mallory >/dev/null 2>&1 || useradd --create-home --uid 4242 mallory
	$(BIN)/pytest -m "lab and not remedies"

test-freeze: $(VENV)/lab ## stop daemons of the running lab while it is collected (root, four minutes)
	$(BIN)/pytest -m freeze tests/live

remedies: $(VENV)/lab ## follow the checks' advice on the running lab, each with its fault (root, an hour)
	$(BIN)/pytest -m remedies tests/live

test-tools: $(VENV)/dev build/tools/node_modules ## run the tests that need a validator from npm (and npm)
	$(BIN)/pytest -m tools

build/tools/node_modules: tests/tools/package.json
	@mkdir -p build/tools && cp $< build/tools/
	@npm install --silent --no-package-lock --no-audit --no-fund --prefix build/tools
	@touch $@

record: $(VENV)/lab ## record the healthy lab, each of its faults, and two hosts as fixtures (root, running lab)
	$(BIN)/python fixtures/record.py

churn: $(VENV)/lab ## look for false alarms for ten minutes while guests come and go (root, running lab)
	$(BIN)/python lab/churn.py

bench: $(VENV)/dev ## measure every limit, as ratios within one run
	$(BIN)/python -m bench

census: $(VENV)/dev ## change every kind of recorded leaf, and fail if nothing notices and nobody declared it
	$(BIN)/python -m tests.census

census-verify: $(VENV)/dev ## make each change of the last census again that was noticed, and fail if nothing notices it any more
	$(BIN)/python -m tests.census --verify

requirements: $(VENV)/release ## pin and hash in requirements/ what users install, at the versions of constraints.txt
	for extra in collect grading reports query; do $(COMPILE) --extra $$extra -o requirements/$$extra.txt pyproject.toml || exit 1; done
	$(COMPILE) -o requirements/explain.txt pyproject.toml
	$(COMPILE) -o requirements/build.txt requirements/build.in
	$(COMPILE) -o requirements/release.txt requirements/release.in
	$(COMPILE) -o requirements/site.txt requirements/site.in

dist: ## build dist/, the source archive and the wheel; the same bytes every time
	rm -rf dist build/backend && $(PYTHON) -m venv build/backend
	build/backend/bin/python -m pip $(HASHED) -r requirements/build.txt
	build/backend/bin/python -m hatchling build

test-dist: ## explain a recording with the wheel of dist/ alone, where no extra is installed
	rm -rf build/alone && $(PYTHON) -m venv build/alone
	build/alone/bin/python -m pip $(HASHED) -r requirements/explain.txt
	build/alone/bin/python -m pip $(HASHED:--require-hashes=) --no-deps dist/*.whl
	cd build && alone/bin/hoodsnap explain --server vm-plain @demo
	cd build && alone/bin/hoodsnap demo virsh-destroy
	test -s build/alone/share/man/man1/hoodsnap.1
	build/alone/bin/python -m pip $(HASHED) -r requirements/reports.txt
	cd build && alone/bin/hoodsnap explain --format html -o alone/report.html @demo

sbom: $(VENV)/release ## write build/sbom.cdx.json, the bill of materials (CycloneDX) of what users install
	rm -rf build/users && $(PYTHON) -m venv --without-pip build/users
	$(VENV)/release/bin/python -m pip --python build/users/bin/python $(HASHED) -r requirements/build.txt -r requirements/collect.txt -r requirements/grading.txt -r requirements/reports.txt -r requirements/query.txt
	$(VENV)/release/bin/python -m pip --python build/users/bin/python $(HASHED:--require-hashes=) --no-deps --no-build-isolation .
	$(VENV)/release/bin/cyclonedx-py environment --pyproject pyproject.toml --output-reproducible -o build/sbom.cdx.json build/users

fuzz: $(VENV)/dev ## damage recordings for MINUTES (10), and keep inputs that break hoodsnap in fuzz/found
	$(BIN)/python -m fuzz --minutes $(or $(MINUTES),10)

clean: ## remove the virtual environment and build/
	rm -rf $(VENV) build

# Each file below marks an installed set of packages. make installs the set again when a prerequisite changes.
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

$(VENV)/page: $(VENV)/dev
	@echo "installing what drives a browser (playwright, axe-core)"
	@$(PIP) -e '.[dev,page]'
	@touch $@

# The tools that make a release are kept apart from what is tested and shipped.
$(VENV)/release: $(VENV)/made requirements/release.txt
	@echo "installing what makes a release (pip-tools, cyclonedx-bom)"
	@$(PYTHON) -m venv $@
	@$@/bin/python -m pip $(HASHED) -r requirements/release.txt
	@touch $@

# As are those that make the site.
$(VENV)/site: $(VENV)/made requirements/site.txt
	@echo "installing what makes the site (mkdocs-material)"
	@$(PYTHON) -m venv $@
	@$@/bin/python -m pip $(HASHED) -r requirements/site.txt
	@touch $@
