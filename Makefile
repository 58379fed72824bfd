# Two commands on a fresh machine that has Python 3.11 or later and make: `make demo`, `make test`.
# Each does all the set-up itself; a second call skips what is done.

SHELL := /bin/bash
VENV ?= .venv
DEMO_DIR ?= geothresh-demo
STUDIES ?= studies
# Python of an environment that has the peers of `make bench`; see bench_peers.py.
PEERS ?= $(VENV)/bin/python
# `make dist` tries wheel and sdist here.
DIST_DIR ?= build/dist
# `make least` tries the least versions of all dependencies here.
LEAST_DIR ?= build/least
# The pinned set in constraints.txt is tested with 3.11, so that is looked for first.
PYTHON ?= python3.11 python3.12 python3.13 python3
PYTEST_ARGS ?= -n 2
# The sizes of `make storm`: with these it takes hours on two cores.
KILLS ?= 200
WORKER_KILLS ?= 50
CHAINS ?= 50
SIGNALS ?= 100
WORKER_SIGNALS ?= 20
LIMITS ?= 200
FILE_SYSTEMS ?= 40
RUNS ?= 20
TRAINING_KILLS ?= 100
VECTOR_KILLS ?= 100
MANY_KILLS ?= 60
STORE_KILLS ?= 15
MANY_WORKER_KILLS ?= 20

BIN := $(VENV)/bin
# Wheels only: a missing one is to be said at once, not after an attempt to build GDAL.
INSTALL := $(BIN)/python -m pip install --quiet --only-binary :all: --constraint constraints.txt
STORM := $(BIN)/python tests/storm
RUNTIME := $(VENV)/.runtime-installed
TESTING := $(VENV)/.testing-installed
DOCUMENTING := $(VENV)/.documenting-installed

.DEFAULT_GOAL := help
.PHONY: help demo test lint types format slow qgis storm report fuzz bench study pictures least docs dist clean

help:  ## this list
	@awk -F ':.*## ' '/^[a-z]+:.*## /{printf "  make %-8s %s\n", $$1, $$2}' Makefile

demo: $(RUNTIME)  ## install, refine the demo scene, write its pictures and its GeoPackage
	$(BIN)/geothresh demo --output $(DEMO_DIR) --overwrite

test: $(TESTING)  ## install, lint, check types, run the tests
	$(MAKE) --jobs=2 --output-sync=target lint types
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest $(PYTEST_ARGS) -m "not slow and not storm and not qgis"

lint: $(TESTING)  ## ruff: rules and format; bandit: what is dangerous
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/bandit --quiet --configfile pyproject.toml --recursive geothresh

types: $(TESTING)  ## mypy
	$(BIN)/mypy

format: $(TESTING)  ## let ruff mend what it can
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

slow: $(TESTING)  ## the tests that take minutes
	$(BIN)/python -m pytest -m slow

qgis: $(TESTING)  ## the QGIS plugin in QGIS, which is installed where one is root on Debian
	@command -v qgis_process >/dev/null || { \
	  if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
	    apt-get update -qq && DEBIAN_FRONTEND=noninteractive \
	      apt-get install -y -qq --no-install-recommends qgis python3-qgis >/dev/null; \
	  else echo "Error: there is no qgis_process; install QGIS 3.22 or later" >&2; exit 1; fi; }
	$(BIN)/python -m pytest -m qgis tests/qgis

storm: $(TESTING)  ## kills, signals, full disks: make storm KILLS=20 CHAINS=5 SIGNALS=10 LIMITS=20
	$(STORM)/storm_refine.py kills --number $(KILLS)
	$(STORM)/storm_refine.py kills --number $(WORKER_KILLS) --workers 2
	$(STORM)/storm_refine.py chains --number $(CHAINS)
	$(STORM)/storm_refine.py signals --number $(SIGNALS)
	$(STORM)/storm_refine.py signals --number $(WORKER_SIGNALS) --workers 2
	$(STORM)/storm_refine.py limits --number $(LIMITS)
	if [ "$$(id -u)" = 0 ]; then $(STORM)/storm_refine.py tmpfs --number $(FILE_SYSTEMS); \
	  else echo "small file systems: left out, mounting one takes root"; fi
	$(STORM)/storm_workers.py --runs $(RUNS)
	$(STORM)/storm_train.py --kills $(TRAINING_KILLS) --limits 20
	$(STORM)/storm_vectorize.py --kills $(VECTOR_KILLS) --limits $(LIMITS)
	$(STORM)/storm_many.py --kills $(MANY_KILLS)
	$(STORM)/storm_many.py --kills $(MANY_WORKER_KILLS) --workers 2
	$(STORM)/storm_store.py --kills $(STORE_KILLS) --faults 0.03

report: $(TESTING)  ## pages in a headless Chromium (Debian's is installed, if one is root)
	@command -v chromium >/dev/null || command -v google-chrome >/dev/null || [ "$$(id -u)" != 0 ] \
	  || { apt-get update -qq && apt-get install -y -qq --no-install-recommends chromium; }
	$(BIN)/python tests/browser/check_pages.py build/report

fuzz: $(TESTING)  ## damaged files by the thousand: make fuzz FUZZ_ARGS='--seed 1 --geotiffs 200'
	$(BIN)/python tests/fuzz/fuzz.py $(FUZZ_ARGS)

bench: $(TESTING)  ## print the tables of the benchmarks, on a machine that does nothing else
	$(BIN)/python tests/benchmarks/bench_pipeline.py speed
	$(BIN)/python tests/benchmarks/bench_pipeline.py memory
	$(BIN)/python tests/benchmarks/bench_refine.py speed
	$(BIN)/python tests/benchmarks/bench_memory.py
	$(BIN)/python tests/benchmarks/bench_refine.py network
	$(BIN)/python tests/benchmarks/bench_overhead.py survival
	$(BIN)/python tests/benchmarks/bench_overhead.py parts
	$(BIN)/python tests/benchmarks/bench_network.py
	$(BIN)/python tests/benchmarks/bench_compile.py
	$(BIN)/python tests/benchmarks/bench_refine.py nodata
	$(BIN)/python tests/benchmarks/bench_inputs.py vrt
	$(BIN)/python tests/benchmarks/bench_inputs.py http
	$(BIN)/python tests/benchmarks/bench_inputs.py strip
	$(BIN)/python tests/benchmarks/bench_startup.py
	$(BIN)/python tests/benchmarks/bench_many.py plan
	$(BIN)/python tests/benchmarks/bench_many.py parent
	$(BIN)/python tests/benchmarks/bench_many.py borders
	$(BIN)/python tests/benchmarks/bench_targets.py
	$(BIN)/python tests/benchmarks/bench_training.py
	$(BIN)/python tests/benchmarks/study_overlap.py
	$(BIN)/python tests/benchmarks/bench_vectorize.py
	$(BIN)/python tests/benchmarks/bench_centerlines.py
	$(BIN)/python tests/benchmarks/bench_peers.py --python $(PEERS)

pictures: $(TESTING)  ## make docs/*.png again, from the demo, and what the notebooks show
	$(BIN)/python -m tests.benchmarks.make_pictures
	$(BIN)/python tests/benchmarks/run_notebooks.py

study: $(TESTING)  ## all studies, which take days on a CPU: make study DATA=folder STUDIES=folder
	@test -n "$(DATA)" || { echo "Error: no data; say make study DATA=folder, which holds" \
	  "SET/<id>_mask.png and confidence/SET/NETWORK/<id>.png" >&2; exit 1; }
	for name in leave-network-out leave-set-out ablation patch seeds; do \
	  $(BIN)/python tests/benchmarks/study.py $$name --data "$(DATA)" --output "$(STUDIES)" \
	    || exit 1; \
	done

docs: $(DOCUMENTING)  ## the documentation as a site, build/site/index.html; what is wrong in it is an error
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet --strict --config-file .mkdocs.yml

dist: | $(BIN)/pip  ## build wheel and sdist into dist/, check them, install in an empty environment, run the demo
	rm -rf dist $(DIST_DIR)
	$(BIN)/python -m venv $(DIST_DIR)/tools
	$(DIST_DIR)/tools/bin/python -m pip install --quiet --only-binary :all: \
	  --constraint constraints.txt hatchling
	$(DIST_DIR)/tools/bin/python -m hatchling build --directory dist
	@# The sdist is whole if it gives the same wheel, to the last byte.
	$(DIST_DIR)/tools/bin/python -m pip wheel --quiet --no-deps --no-build-isolation \
	  --wheel-dir $(DIST_DIR)/again dist/geothresh-*.tar.gz
	cmp dist/geothresh-*.whl $(DIST_DIR)/again/geothresh-*.whl
	$(BIN)/python -m venv $(DIST_DIR)/venv
	$(DIST_DIR)/venv/bin/python -m pip install --quiet --only-binary :all: \
	  --constraint constraints.txt dist/geothresh-*.whl
	$(DIST_DIR)/venv/bin/python -m pip check
	cd $(DIST_DIR) && venv/bin/geothresh demo --output demo

least: | $(BIN)/pip  ## run the tests with the least versions that pyproject.toml allows
	rm -rf $(LEAST_DIR)
	$(BIN)/python -m venv $(LEAST_DIR)/venv
	$(BIN)/python tests/house/least_versions.py > $(LEAST_DIR)/constraints.txt
	$(LEAST_DIR)/venv/bin/python -m pip install --quiet --only-binary :all: \
	  --constraint $(LEAST_DIR)/constraints.txt --editable '.[test]'
	OMP_NUM_THREADS=1 $(LEAST_DIR)/venv/bin/python -m pytest $(PYTEST_ARGS) -m "not slow and not storm"

clean:  ## remove the environment, the caches and the demo's output
	rm -rf $(VENV) $(DEMO_DIR) build dist .hypothesis .mypy_cache .pytest_cache .ruff_cache
	find geothresh tests -name __pycache__ -type d -prune -exec rm -rf {} +

$(RUNTIME): pyproject.toml constraints.txt | $(BIN)/pip
	@echo "Installing geothresh and what it needs into $(VENV); the first time takes some minutes."
	$(INSTALL) --editable .
	@touch $@

$(TESTING): pyproject.toml constraints.txt | $(BIN)/pip
	@echo "Installing geothresh with the test tools into $(VENV); the first time takes some minutes."
	$(INSTALL) --editable '.[test]'
	@touch $@ $(RUNTIME)

$(DOCUMENTING): pyproject.toml constraints.txt | $(BIN)/pip
	@echo "Installing geothresh with what makes its site into $(VENV)."
	$(INSTALL) --editable '.[docs]'
	@touch $@ $(RUNTIME)

# pip is the last thing that venv installs: where it is, the environment is whole.
$(BIN)/pip:
	@for candidate in $(PYTHON); do \
	  if "$$candidate" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' \
	      >/dev/null 2>&1; then \
	    echo "Making $(VENV) with $$candidate ($$("$$candidate" --version))"; \
	    exec "$$candidate" -m venv --clear $(VENV); \
	  fi; \
	done; \
	echo "Error: none of '$(PYTHON)' is a Python 3.11 or later with the venv module;" \
	  "install one (on Debian and Ubuntu also its python3-venv package)," \
	  "or name it: make PYTHON=/path/to/python3" >&2; \
	exit 1
