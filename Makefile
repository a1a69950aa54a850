# From a clone to a result: `make demo`. What it needs: git, make, and Python >= 3.11 with pip and venv.
PYTHON ?= $(firstword $(foreach name,python3 python3.14 python3.13 python3.12 python3.11 python,\
	$(shell $(name) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $(name))))
BIN := .venv/bin
UV ?= $(or $(shell command -v uv),.state/uv/bin/uv)
# uv doesn't read pip's settings: take the mirror that pip is set to, where it is.
PIP_MIRROR := $(or $(PIP_INDEX_URL),$(if $(PYTHON),$(shell $(PYTHON) -m pip config get global.index-url 2>/dev/null)))
ifneq ($(PIP_MIRROR),)
export UV_DEFAULT_INDEX ?= $(PIP_MIRROR)
endif
export UV_PYTHON_DOWNLOADS = never
# Without compiled bytecode every command imports for twice as long.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: demo test test-long serve setup lint lock

demo: setup  ## the whole pipeline on generated scenes, then a summary
	$(BIN)/python -m flows.pipeline --profile demo

test: setup  ## in two processes, a thread each: more only wait for one another
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest

test-long: setup  ## kills, concurrency and generated input: minutes to hours
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 0 -m long

serve: setup  ## Prefect server, a worker and the MLflow UI, until ctrl-c
	@exec $(BIN)/python -m flows.serve

setup: .venv/.installed

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

lock: setup  ## after a change of the dependencies in pyproject.toml
	$(UV) pip compile pyproject.toml --extra dev --universal --python-version 3.11 --generate-hashes --no-header \
		--no-emit-index-url --no-emit-find-links --quiet --output-file requirements.lock

.venv/.installed: .venv/.locked pyproject.toml
	$(UV) pip install --quiet --python $(BIN)/python --no-deps --no-build-isolation --offline --editable .
	@touch $@

.venv/.locked: requirements.lock | $(UV)
	@test -n "$(PYTHON)" || { echo "Python 3.11 or newer not found; name one: make PYTHON=/path/to/python3.12" >&2; exit 1; }
	test -x $(BIN)/python || $(UV) venv --python $(PYTHON) .venv
	$(UV) pip sync --python $(BIN)/python --require-hashes --compile-bytecode requirements.lock
	@touch $@

# uv in an environment of its own, of the version and hash in requirements.lock.
.state/uv/bin/uv:
	@test -n "$(PYTHON)" || { echo "Python 3.11 or newer not found; name one: make PYTHON=/path/to/python3.12" >&2; exit 1; }
	$(PYTHON) -m venv .state/uv
	sed -n '/^uv==/,/[^\\]$$/p' requirements.lock > .state/uv/requirements.txt
	.state/uv/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes -r .state/uv/requirements.txt
