# `make demo` and `make test` are the README's two commands; each sets everything up first.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.setup-done

.PHONY: setup demo test test-slow lint docs bench gallery clean
.DEFAULT_GOAL := help

help:
	@echo "make setup    a virtual environment in $(VENV) with earthgen and its tools"
	@echo "make demo     generate, export and picture a world of a real place (demo-output/)"
	@echo "make test     the tests; make test-slow runs the few that take long"
	@echo "make lint     ruff, mypy, the order of the packages"
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

test: setup
	$(BIN)/python -m pytest -n 2 --dist loadfile -m "not slow"

test-slow: setup
	$(BIN)/python -m pytest -n 2 --dist load -m slow

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
