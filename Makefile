# Everything that a person types. `make` alone lists it.
# Installed is what requirements/*.lock pins and hashes, into .venv; stamps in .venv/ make a second run quick.

DEMO_PROMPT ?= a large shiny red sphere to the left of a small matte blue cube on a gray floor, light from the left
DEMO_SEED ?= 2
DEMO_IMAGE ?= demo.png
PYTEST_ARGS ?=
TEST_WORKERS ?= 2
LOCK_ARGS ?=

UV := scripts/uv
PYTHON_VERSIONS := >=3.11
VENV := .venv
PY := $(VENV)/bin/python
RUNTIME := $(VENV)/.installed-runtime
TEST := $(VENV)/.installed-test
SOURCES := $(wildcard src tests benchmarks)
# Each worker takes whole files, computes with one thread, and comes to the browser's tests last.
RUN_TESTS := OMP_NUM_THREADS=1 $(PY) -m pytest -n $(TEST_WORKERS) --dist loadfile --no-loadscope-reorder
INSTALL := $(UV) pip install --quiet --python $(PY)
COMPILE_LOCK := $(UV) pip compile --quiet --universal --python-version 3.11 --fork-strategy fewest \
	--generate-hashes --custom-compile-command "make lock" $(LOCK_ARGS)

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help demo test test-fast test-deps golden check format lock clean clean-all

help: ## list these commands
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

demo: $(RUNTIME) ## install Licht into .venv and draw a first picture with the built-in model
	@rm -f $(DEMO_IMAGE)
	$(VENV)/bin/licht generate "$(DEMO_PROMPT)" --seed $(DEMO_SEED) -o $(DEMO_IMAGE)
	@echo "The picture is $(abspath $(DEMO_IMAGE))"

test: $(TEST) ## install what the tests need and run them all
	@$(RUN_TESTS) $(PYTEST_ARGS)

test-fast: $(TEST) ## the same without the slow tests
	@$(RUN_TESTS) -m "not slow" $(PYTEST_ARGS)

test-deps: $(TEST) ## only install what the tests and checks need

golden: $(TEST) ## print how far Licht is from the reference: variant, case, measured error
	@$(PY) -m tests.golden.report

check: $(TEST) ## lint, formatting and strict types
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(PY) -m mypy $(SOURCES)

format: $(TEST) ## format, and repair what the linter can repair safely
	$(PY) -m ruff check --fix .
	$(PY) -m ruff format .

lock: ## resolve the locks again (LOCK_ARGS=--upgrade takes the newest versions)
	$(COMPILE_LOCK) pyproject.toml --group build -o requirements/runtime.lock
	$(COMPILE_LOCK) pyproject.toml --group build --extra test --extra check -c requirements/runtime.lock -o requirements/test.lock
	$(COMPILE_LOCK) --group bootstrap -o requirements/bootstrap.lock

clean: ## remove caches and build products
	rm -rf build dist .mypy_cache .pytest_cache .ruff_cache .hypothesis
	find $(SOURCES) -name __pycache__ -type d -prune -exec rm -rf {} +

clean-all: clean ## remove the environments as well
	rm -rf $(VENV) .tools .tools.part

$(PY):
	@$(UV) venv --quiet --allow-existing --python "$(PYTHON_VERSIONS)" $(VENV)

# Bytecode is compiled while installing: the first import of PyTorch then takes 1.9 s instead of 4.3 s (two cores).
# The package itself is linked, not copied; its build backend comes from the lock, so nothing unpinned is fetched.
$(RUNTIME): pyproject.toml requirements/runtime.lock | $(PY)
	@echo "Installing Licht and PyTorch into $(VENV) (about 6 GB on disk; once)"
	@$(INSTALL) --compile-bytecode --require-hashes -r requirements/runtime.lock
	@$(INSTALL) --no-deps --no-build-isolation -e .
	@touch $@

$(TEST): pyproject.toml requirements/test.lock | $(PY)
	@echo "Installing Licht, PyTorch and what the tests need into $(VENV) (about 6 GB on disk; once)"
	@$(INSTALL) --compile-bytecode --require-hashes -r requirements/test.lock
	@$(INSTALL) --no-deps --no-build-isolation -e .
	@touch $(RUNTIME) $@
