PYTHON ?= python3
BIN := .venv/bin
READY := .venv/.ready
export HANDCLR_CACHE ?= $(CURDIR)/.venv/cache/handclr
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q

.PHONY: install test nodes quick lint docs site demo dist clean

install: $(READY)

# Everything that needs the network is here: the packages, and MediaPipe's model file.
$(READY): pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	-$(BIN)/python -m handclr_cli.footage.model_file
	touch $(READY)

# Three on two cores: part of the time tests wait, for processes to start.
# Neighbours stay together, so that what a file of tests shares is made once.
test: $(READY)
	$(PYTEST) -n 3 --dist worksteal -m 'not nodes'

# A Slurm on this machine, of one node and of three, and two agents of torchrun.
nodes: $(READY)
	$(PYTEST) -m nodes

quick: $(READY)
	$(PYTEST) -n 2 --dist worksteal -m 'not slow and not real and not landmarker'

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# What is generated from the code: the tables of docs/format.md, and the reference of the commands as a
# page and as man pages.
docs: $(READY)
	$(BIN)/python -m handclr_cli.contract.document docs/format.md
	$(BIN)/python -m handclr_cli.reference docs/commands.md man

# The pages as a site, in site/; a dead link, also within a page, is an error (but not with --quiet).
site: $(READY)
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

# The whole pipeline on synthetic footage; ends with demo/report.html. Run again, it goes on where it stopped.
demo: $(READY)
	$(BIN)/handclr demo demo

# What is published: the source, and the wheel that comes of it; both checked, nothing uploaded.
dist: $(READY)
	rm -rf dist
	$(BIN)/python -m build --no-isolation --outdir dist
	$(BIN)/python -m twine check --strict dist/*

clean:
	rm -rf .venv dist .mypy_cache .pytest_cache .ruff_cache
