# make demo    install kitcache into .venv and run its main commands; needs no root
# make test    set up everything, then run every check
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
OTHER := .venv-other
CHECKED := src tests bench demo scripts ci
PYTEST := $(BIN)/python -m pytest -q -n 2 --dist worksteal

.PHONY: demo test setup packages format lint types layers tests tests-other golden bench soak clean

demo: $(VENV)/installed
	$(BIN)/python demo/run.py

test: setup lint types layers tests tests-other

setup: packages $(VENV)/ready $(VENV)/azurite/ready $(OTHER)/ready

# As root on Debian, install the daemons and tools that the tests run; elsewhere, print which are missing.
packages:
	sh scripts/setup_debian.sh

$(VENV)/installed: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable .
	touch $@

$(VENV)/ready: $(VENV)/installed requirements-dev.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --requirement requirements-dev.txt
	touch $@

# An emulator of Azure Blob Storage, from npm's registry. Without npm, its tests are skipped.
$(VENV)/azurite/ready: $(VENV)/installed Makefile
	mkdir -p $(@D)
	if command -v npm >/dev/null; then npm install --prefix $(@D) --no-fund --no-audit --loglevel=error azurite@3.35.0 && touch $@; fi

# A second supported Python, if this machine has one, such as Debian's.
$(OTHER)/ready: $(VENV)/ready
	$(BIN)/python scripts/other_python.py $(OTHER)
	touch $@

format:
	$(BIN)/ruff format $(CHECKED)
	$(BIN)/ruff check --fix $(CHECKED)

lint:
	$(BIN)/ruff format --check $(CHECKED)
	$(BIN)/ruff check $(CHECKED)

types:
	$(BIN)/mypy

layers:
	$(BIN)/lint-imports

tests:
	$(PYTEST) tests

tests-other:
	$(BIN)/python scripts/run_other.py $(OTHER) tests/unit tests/property tests/caches

golden:
	$(BIN)/python -m pytest -q tests/unit/test_golden.py tests/docs/test_fields.py \
		tests/unit/test_surface_types.py \
		tests/unit/cli/test_plain.py --golden

bench: $(VENV)/ready
	$(BIN)/python -m bench

soak: setup
	$(BIN)/python tests/soak.py

clean:
	rm -rf $(VENV) $(OTHER) dist build
