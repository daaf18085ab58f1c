# Daily commands. `make` alone lists them.
#
#   EXTRA=gpu             install vLLM's CUDA build (default: what .venv was made for, else cpu)
#   GOAL=image            with EXTRA=gpu: install where there is no GPU, for a machine that has one
#   PYTHON=/path/python   make .venv with this Python 3.11 to 3.13
#   ARGS="-k packing"     passed on to pytest, or to the benchmark

.DEFAULT_GOAL := help
.PHONY: $(shell sed -n 's/^\([a-z-]*\):.*\#\# .*/\1/p' $(firstword $(MAKEFILE_LIST)))

BIN := .venv/bin
# Does nothing when .venv is complete.
SETUP := scripts/setup.sh $(if $(EXTRA),--extra $(EXTRA))
PYTEST := $(BIN)/python -m pytest
OTHERS := not slow and not alone and not methods and not cluster and not gpu
# A file's tests on one worker, the long files first: see tests/conftest.py.
TWO_WORKERS := -n 2 --dist loadfile --no-loadscope-reorder

help: ## list these commands
	@echo "usage: make COMMAND"
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' $(firstword $(MAKEFILE_LIST)) | expand -t 16 | sed 's/^/  /'

setup: ## install exact versions into .venv (EXTRA=gpu for CUDA)
	@$(SETUP) $(if $(GOAL),--goal $(GOAL))
	@echo "ready; next: make quickstart"

quickstart: ## train a small policy on this machine and write its report
	@$(SETUP) --goal quickstart
	@$(BIN)/python -m mgrpo train quickstart --run quickstart --overwrite

test: ## run the tests: minutes on two cores, with a run of real engines and a real learner
	@$(SETUP)
	@$(PYTEST) $(TWO_WORKERS) -m "$(OTHERS) and not processes" $(ARGS)

test-processes: ## run the tests of real engines, ranks, weights, placement and resumed runs: minutes
	@$(SETUP)
	@$(PYTEST) $(TWO_WORKERS) -m "$(OTHERS) and processes" $(ARGS)

test-alone: ## run twelve faults of `make chaos` and sixty steps of `make leaks`: eleven minutes
	@$(SETUP)
	@$(PYTEST) -m alone $(ARGS)

test-slow: ## run the few tests that are left out of `make test` for their length
	@$(SETUP)
	@$(PYTEST) -m "slow and not gpu and not cluster" $(ARGS)

test-cluster: extras ## run the tests on Ray clusters of several nodes, jobs and autoscaling
	@$(BIN)/python -m pip install --quiet --no-deps -r tests/cluster/requirements.txt
	@$(PYTEST) -m "cluster and not gpu" $(ARGS)

test-methods: ## check and train every method and 150 random valid recipes, and repeat five-step runs
	@$(SETUP)
	@$(PYTEST) -m methods $(ARGS)

test-parity: ## compare advantages, losses and gradients with TRL's own code, in .venv-trl
	@$(SETUP)
	@$(BIN)/python -c "from benchmarks.step_time import make_trl_environment as make; make()"
	@.venv-trl/bin/pip install --quiet -r tests/parity/requirements.txt
	@.venv-trl/bin/python -m pytest tests/parity $(ARGS)

extras: ## install what S3 and Google storage, trackers and clusters on AWS and Google Cloud need
	@$(SETUP)
	@$(BIN)/python -m pip install --quiet --no-deps -r requirements/extras.txt

lock: ## pin requirements/*.txt again, from pyproject.toml (ARGS="--upgrade-package scipy")
	@$(SETUP)
	@$(BIN)/python -m scripts.lock $(ARGS)

test-trackers: extras ## record runs with every tracker, offline
	@$(PYTEST) -m trackers $(ARGS)

test-storage: extras ## keep runs in S3 storage, on a server of this machine
	@$(PYTEST) -m storage $(ARGS)

test-notebook: ## run the example notebook in a kernel of its own
	@$(SETUP)
	@$(PYTEST) -m notebook $(ARGS)

test-gpu: ## run the tests that need a CUDA device
	@$(SETUP)
	@$(PYTEST) -m gpu $(ARGS)

check: ## lint, formatting, types, import contract, documentation
	@$(SETUP)
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check --quiet . || { echo "not formatted; run: make fix"; exit 1; }
	@$(BIN)/mypy
	@$(BIN)/lint-imports --no-logo
	@$(MAKE) --no-print-directory docs

fix: ## fix formatting and what the linter can fix by itself
	@$(SETUP)
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

docs: ## build the documentation site into site/, without a network
	@$(SETUP)
	@$(BIN)/sphinx-build --quiet --fresh-env --fail-on-warning -c docs . site
	@echo "documentation: site/index.html"

docs-serve: docs ## ... and show it on http://127.0.0.1:8000
	@$(BIN)/python -m http.server --bind 127.0.0.1 --directory site 8000

wheel: ## build the source archive and the wheel into dist/
	@$(SETUP)
	@rm -rf build dist
	@$(BIN)/python -m build --no-isolation --outdir dist .

test-wheel: wheel ## ... install the wheel into an empty environment, and use it (ARGS=all: all steps)
	@scripts/try_wheel.sh dist/*.whl $(ARGS)

mutants: ## change one thing at a time and see whether a fast test notices (ARGS="--only W1")
	@$(SETUP)
	@$(BIN)/python -m scripts.mutants $(ARGS)

bench: ## measure a training step against TRL on this machine
	@$(SETUP)
	@$(BIN)/python -m benchmarks.step_time $(ARGS)

bench-guard: ## compare a step's CPU seconds with recorded ones; fails above +10 % (ARGS=--write)
	@$(SETUP)
	@$(BIN)/python -m benchmarks.guard $(ARGS)

leaks: ## does a run hold more with every step? 500 steps, some ten minutes (ARGS="--steps 60 --write")
	@$(SETUP)
	@$(BIN)/python -m benchmarks.leaks $(ARGS)

chaos: ## train under a schedule of 204 faults; goes on where it stopped (ARGS="--faults 24")
	@$(SETUP)
	@$(BIN)/python -m benchmarks.chaos $(ARGS)

recovery: ## seconds in which a run goes on after it loses an engine, its vLLM process, a learner rank
	@$(SETUP)
	@$(BIN)/python -m benchmarks.chaos --faults 3 --work runs/recovery --part recovery \
		--kinds "engine actor killed" "EngineCore killed" "learner rank killed" $(ARGS)

resume-proof: ## hashes of runs that were interrupted beside those of one that was not, ten minutes
	@$(SETUP)
	@$(BIN)/python -m benchmarks.resume $(ARGS)

fuzz: ## read 100,000 damaged recipes, files and replies (ARGS="--cases 2000 --only recipes")
	@$(SETUP)
	@$(BIN)/python -m tests.fuzz $(ARGS)

answers: ## grade labelled answers with math_answer and with math-verify (ARGS=--write)
	@$(SETUP)
	@$(BIN)/python -m benchmarks.answers $(ARGS)

study: ## compare methods under one budget; goes on where it stopped (ARGS=--list)
	@$(SETUP)
	@$(BIN)/python -m benchmarks.study --write $(ARGS)

second-look: ## eleven arms on two families, by docs/results/protocol.md; goes on where it stopped (ARGS="--minutes 60 --family chain_sum")
	@$(SETUP)
	@$(BIN)/python -m benchmarks.second_look $(ARGS)

architectures: ## measure which model architectures train; goes on where it stopped (ARGS=--again)
	@$(SETUP)
	@$(BIN)/python -m benchmarks.architectures --write $(ARGS)

methods-pages: ## write the generated parts of the methods' pages, from recipes, docstrings and recorded runs
	@$(SETUP)
	@$(BIN)/python -m scripts.method_pages

house: ## print the size of the code, circles of imports, and how typed it is
	@$(SETUP)
	@$(BIN)/python -m scripts.house $(ARGS)

clean: ## remove caches and build products; .venv and runs stay
	@rm -rf .mypy_cache .pytest_cache .ruff_cache .hypothesis .import_linter_cache *.egg-info build dist site
	@find . -name __pycache__ -not -path './.venv*' -prune -exec rm -rf {} +
