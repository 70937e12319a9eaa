# Two commands for a fresh machine with Python 3.10+ and a package registry: `make demo` and `make test`.
# Each builds a virtual environment of its own and installs what it needs.

PYTHON ?= python3
DEMO := .venv-demo
TEST := .venv
# Processes that share out the test files: a file stays in one, as its tests share what is costly to make.
WORKERS ?= 2

.PHONY: demo test test-slow test-transformers lint clean

# PyTorch first: later releases and other packages' ranges would bring gigabytes of CUDA libraries.
define environment
	$(PYTHON) -m venv $(1)
	$(1)/bin/python -m pip install --quiet torch==2.13.0
	$(1)/bin/python -m pip install --quiet --editable ".[$(2)]"
	touch $(1)/installed
endef

$(DEMO)/installed: setup.py
	$(call environment,$(DEMO),demo)

$(TEST)/installed: setup.py
	$(call environment,$(TEST),dev)

demo: $(DEMO)/installed
	$(DEMO)/bin/python training/demo.py

test: $(TEST)/installed lint
	$(TEST)/bin/python -m pytest -n $(WORKERS) --dist loadfile

test-slow: $(TEST)/installed
	$(TEST)/bin/python -m pytest -m slow

# All of transformers' own common tests; `make test` leaves out the slow ones.
test-transformers: $(TEST)/installed
	$(TEST)/bin/python -m pytest -m "" tests/transformers_common

lint: $(TEST)/installed
	$(TEST)/bin/ruff check .
	$(TEST)/bin/ruff format --check .

clean:
	rm -rf $(DEMO) $(TEST) build *.egg-info
