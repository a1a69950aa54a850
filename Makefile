# `make demo` goes from a clone to a result. It needs git, make, and Python 3.11 or newer with pip and venv.
PYTHON ?= $(firstword $(foreach name,python3 python3.14 python3.13 python3.12 python3.11 python,\
	$(shell $(name) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $(name))))
BIN := .venv/bin
UV ?= $(or $(shell command -v uv),.state/uv/bin/uv)
# uv doesn't read pip's settings, so the package index that pip is configured to use is passed on to it.
PIP_MIRROR := $(or $(PIP_INDEX_URL),$(if $(PYTHON),$(shell $(PYTHON) -m pip config get global.index-url 2>/dev/null)))
ifneq ($(PIP_MIRROR),)
export UV_DEFAULT_INDEX ?= $(PIP_MIRROR)
endif
export UV_PYTHON_DOWNLOADS = never
# Without compiled bytecode the imports of every command take twice as long.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: demo test test-long serve setup lint lock

demo: setup  ## runs the whole pipeline on generated scenes, then prints a summary
	$(BIN)/python -m flows.pipeline --profile demo

test: setup  ## runs the tests in two processes of one thread; more threads would wait for each other
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest

test-long: setup  ## runs the tests with kills, concurrency and generated input, which take minutes to hours
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 0 -m long

serve: setup  ## runs a Prefect server, a Prefect worker and the MLflow UI until ctrl-c
	@exec $(BIN)/python -m flows.serve

setup: .venv/.installed

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

lock: setup  ## writes requirements.lock, after a change of the dependencies in pyproject.toml
	$(UV) pip compile pyproject.toml --extra dev --universal --python-version 3.11 --generate-hashes --no-header \
		--no-emit-index-url --no-emit-find-links --quiet --output-file requirements.lock

.venv/.installed: .venv/.locked pyproject.toml
	$(UV) pip install --quiet --python $(BIN)/python --no-deps --no-build-isolation --offline --editable .
	@touch $@

.venv/.locked: requirements.lock | $(UV)
	@test -n "$(PYTHON)" || { echo "expected Python 3.11 or newer on the PATH, found none; name one: make PYTHON=/path/to/python3.12" >&2; exit 1; }
	test -x $(BIN)/python || $(UV) venv --python $(PYTHON) .venv
	$(UV) pip sync --python $(BIN)/python --require-hashes --compile-bytecode requirements.lock
	@touch $@

# uv is installed in an environment of its own, with the version and hash in requirements.lock.
.state/uv/bin/uv:
	@test -n "$(PYTHON)" || { echo "expected Python 3.11 or newer on the PATH, found none; name one: make PYTHON=/path/to/python3.12" >&2; exit 1; }
	$(PYTHON) -m venv .state/uv
	sed -n '/^uv==/,/[^\\]$$/p' requirements.lock > .state/uv/requirements.txt
	.state/uv/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes -r .state/uv/requirements.txt
