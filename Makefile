# Two commands need nothing but Python 3.11 and make: `make demo` and `make test`.

PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV   := .venv
BIN    := $(VENV)/bin
READY  := $(VENV)/.ready
TEST_WORKERS ?= 3

.PHONY: install demo demo-split test lint check properties bench latency idle transitions distributed stalls timers chaos chaos-split console-load screenshots flood links purge queues scaling pace systemd-machine clean

install: $(READY)        ## the engine and all it needs, in .venv

demo: $(READY)           ## run 200 orders through a daemon on free ports, and show how they ended
	@$(BIN)/python -m examples.orders.demo

demo-split: $(READY)     ## the same orders through eleven processes over PostgreSQL and Redis, one of each kind killed
	@$(BIN)/python -m examples.split.demo

test: $(READY)           ## the whole test suite, its files shared among TEST_WORKERS processes
	@$(BIN)/python -m pytest --numprocesses $(TEST_WORKERS) --dist loadfile --no-loadscope-reorder

lint: $(READY)           ## ruff, mypy (strict), import contracts
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

check: lint test

bench: $(READY)          ## tasks a second through the WebSocket, with and without a flood of reads
	@$(BIN)/python -m benchmarks.throughput

properties: $(READY)     ## what is said of all inputs, tried on twelve times as many as in the suite
	@$(BIN)/python -m pytest -m hypothesis --hypothesis-profile thorough --numprocesses $(TEST_WORKERS) --dist loadfile

chaos: $(READY)          ## orders, items and workers under at least 20 kills each
	@$(BIN)/python -m pytest -q tests/chaos tests/workers/test_worker_chaos.py --kills 25

chaos-split: $(READY)    ## a split engine: every kind of process killed for five minutes; its servers lost, its network cut
	@$(BIN)/python -m pytest -q tests/split --chaos-minutes 5

latency: $(READY)        ## what a run that never rests does to the others
	@$(BIN)/python -m benchmarks.latency

idle: $(READY)           ## what 10,000 waiting executions cost
	@$(BIN)/python -m benchmarks.idle

transitions: $(READY)    ## what one transition costs in the pure core, with either query language
	@$(BIN)/python -m benchmarks.transitions

distributed: $(READY)    ## 100,000 items of a distributed Map: how fast, with how much memory
	@$(BIN)/python -m benchmarks.distributed

stalls: $(READY)         ## the longest the loop stands still under definitions made to cost
	@$(BIN)/python -m benchmarks.stalls

timers: $(READY)         ## timers held to their limits: late by how much, 10,000 at once, a million armed
	@$(BIN)/python -m benchmarks.timers

console-load: $(READY)   ## what the console costs beside 10,000 executions and 500 changes a second
	@$(BIN)/python -m benchmarks.console

screenshots: $(READY)    ## pictures of the console for the README, from a daemon that runs
	@$(BIN)/python -m examples.orders.screenshots

flood: $(READY)          ## what one tenant's flood does to another
	@$(BIN)/python -m benchmarks.flood

links: $(READY)          ## what a message costs through Redis, against a link inside the process
	@$(BIN)/python -m benchmarks.links

purge: $(READY)          ## what purging costs those who run executions meanwhile, on both stores, in turns
	@$(BIN)/python -m benchmarks.purging

queues: $(READY)         ## tasks a second of a split engine with its queues in memory and in Redis, in turns
	@$(BIN)/python -m benchmarks.queues

scaling: $(READY)        ## tasks a second for more Workers and more Histories, as processes of their own
	@$(BIN)/python -m benchmarks.scaling

pace: $(READY)           ## how long starts and executions take in a split engine at ten a second
	@$(BIN)/python -m benchmarks.pace

systemd-machine: $(READY)  ## docs/systemd.md on a systemd booted for it, in namespaces of its own: as root
	@$(BIN)/python -m pytest -q tests/systemd/test_machine.py --systemd-machine

clean:
	rm -rf $(VENV)

$(READY): requirements.lock pyproject.toml
	@test -n "$(PYTHON)" || { echo "Python 3.11 or newer is needed (python3.11 on the PATH, or make PYTHON=...)"; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Python 3.11 or newer is needed; $(PYTHON) is older (make PYTHON=...)"; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements.lock
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --editable .
	@touch $@
