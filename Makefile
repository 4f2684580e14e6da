# `make demo` and `make test` are the README's two commands; each sets everything up first.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.setup-done

SECONDS ?= 60

# Tests write many small worlds, and wait for the disk at each: in memory where there is enough.
IN_MEMORY := $(shell df -Pk /dev/shm 2>/dev/null | \
	awk 'NR == 2 && $$4 > 4000000 { print "PYTEST_DEBUG_TEMPROOT=/dev/shm" }')

.PHONY: setup demo test test-slow fuzz lint licences sbom docs bench gallery clean
.DEFAULT_GOAL := help

help:
	@echo "make setup    a virtual environment in $(VENV) with earthgen and its tools"
	@echo "make demo     generate, export and picture a world of a real place (demo-output/)"
	@echo "make test     the tests; make test-slow runs the few that take long"
	@echo "make fuzz     damaged files of all formats, for SECONDS=60"
	@echo "make lint     ruff, mypy, the order of the packages"
	@echo "make licences the licences of all dependencies; fails on copyleft"
	@echo "make sbom     what the environment holds, as CycloneDX (sbom.json)"
	@echo "make docs     the documentation site (site/)"
	@echo "make bench    the benchmarks"
	@echo "make gallery  the worlds of docs/gallery (needs the real data beside the checkout)"

$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[dev,docs]"
	@# A peer in the benchmarks; its models would need torchvision and more, its octrees do not.
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps "ocnn>=2.3"
	touch $(STAMP)

setup: $(STAMP)
	@echo "environment: $(CURDIR)/$(VENV)   command: $(CURDIR)/$(BIN)/earthgen"

demo: setup
	$(BIN)/python examples/demo.py

# Two workers on two cores: networks that took two threads each would wait for each other.
test: setup
	OMP_NUM_THREADS=1 $(IN_MEMORY) $(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder -m "not slow"

test-slow: setup
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist load -m slow

fuzz: setup
	$(BIN)/python -m tests.fuzz.run --seconds $(SECONDS)

licences: setup
	$(BIN)/python .ci/licences.py

sbom: setup
	$(BIN)/python -m pip install --quiet --disable-pip-version-check "cyclonedx-bom>=5"
	$(BIN)/cyclonedx-py environment --pyproject pyproject.toml --output-reproducible \
		--of JSON -o sbom.json $(BIN)/python

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

docs: setup
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

bench: setup
	$(BIN)/python -m benchmarks

gallery: setup
	$(BIN)/python docs/gallery/make.py

clean:
	rm -rf $(VENV) demo-output gallery-output
