# On a fresh machine: `make demo`, `make test`, and `make serve` for the page.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.PHONY: demo serve test lint clean

demo: $(READY)
	$(BIN)/sayso demo --out demo

# The page, for reviewers: prints its address and an admin's token for a day.
serve: $(READY)
	$(BIN)/sayso serve --admin Reviewer --controller "This machine"

# Two processes, a file at a time: on more, tests that start processes of their own fight.
test: lint
	OMP_NUM_THREADS=1 $(BIN)/pytest -q -n 2 --dist loadfile

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright

# Made once; again only when the dependencies change. A half-made venv has no .ready and is finished.
$(READY): pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --editable '.[train,enrol,serve,plot,bench,dev]'
	touch $(READY)

clean:
	rm -rf $(VENV) demo build dist
