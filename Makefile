# The two commands: `make study` and `make test`. Both need Python 3.11 or later with pip and venv, nothing else.
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
# such as PIP_ARGS="--extra-index-url https://download.pytorch.org/whl/cpu", which saves gigabytes of CUDA on Linux
PIP_ARGS ?=

# what a recipe runs is not printed, only what it says
.SILENT:

.PHONY: study test test-notebooks test-clients soak lint docs clean

study: $(VENV)/.data
	$(BIN)/ncsam study studies/quick.toml --out results/quick

# Engines apart: torch's autograd aborts in a process in which a Dask cluster was at work.
# Byte-compiled first: many tests start processes, which compile the packages anew where Python is told to write no files.
test: $(VENV)/.test
	$(BIN)/python -m compileall -q analysis figures landscape ncsam
	OMP_WAIT_POLICY=PASSIVE $(BIN)/python -m pytest tests/analysis/test_engines.py
	OMP_WAIT_POLICY=PASSIVE $(BIN)/python -m pytest -n 2 --dist worksteal --ignore=tests/analysis/test_engines.py --ignore=tests/clients \
		--ignore=tests/test_notebooks.py

# `make docs` runs the notebooks too
test-notebooks: $(VENV)/.test
	OMP_WAIT_POLICY=PASSIVE $(BIN)/python -m pytest tests/test_notebooks.py

# real models of other libraries, of small random configurations
test-clients: $(VENV)/.clients
	OMP_WAIT_POLICY=PASSIVE $(BIN)/python -m pytest tests/clients

# kills, threads and hostile files with fresh seeds, for an hour or so many seconds
soak: $(VENV)/.test
	SOAK_SECONDS=$(or $(SOAK_SECONDS),3600) OMP_WAIT_POLICY=PASSIVE $(BIN)/python -m tests.soak

lint: $(VENV)/.lint
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# -W: a warning, such as a link that leads nowhere, is an error
docs: $(VENV)/.docs
	$(BIN)/python -m sphinx -W --keep-going -q -j auto -b html docs site
	echo "written: site/index.html"

clean:
	rm -rf $(VENV) build site *.egg-info

# Byte-compiling on all cores afterward takes half the time of pip's own, and leaves out the packages' tests.
define install
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/pip install -qq --disable-pip-version-check --no-compile $(PIP_ARGS) -c constraints.txt -e '.[$(1)]'
	$(BIN)/python -m compileall -q -j 0 -x '/tests?/' $(VENV)/lib >/dev/null || true
	touch $@
endef

# one file an extra of pyproject.toml, which says that it is installed
$(VENV)/.%: pyproject.toml constraints.txt
	echo "installing into $(VENV)"
	$(call install,$*)
