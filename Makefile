# Every target does the set-up it needs: a virtual environment, the locked dependencies, the package itself.
PYTHON ?= python3
VENV   := .venv
LOWEST := .venv-lowest
BIN    := $(VENV)/bin
READY  := $(VENV)/.ready
CLIENT := clients/typescript
CLIENT_READY := $(CLIENT)/node_modules/.ready
unexport PYTHONDONTWRITEBYTECODE # tests start the router hundreds of times, each of which would compile it

.PHONY: help serve demo test proof test-lowest sim sim-day mutants chaos chaos-disk powerloss model fuzz bench bench-production lint check lock docs dist \
    try-dist clean

help:  ## Show the targets
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 20

serve: $(READY)  ## Run the whole router on this machine
	@$(BIN)/router serve

demo: $(READY) $(CLIENT_READY)  ## A messenger in two browser windows, on a router of its own; ARGS="--open --data DIR"
	@command -v npm >/dev/null || { echo "make demo needs Node 20 or newer and npm, to compile $(CLIENT)" >&2; exit 1; }
	@npm --prefix $(CLIENT) run -s prepack
	@$(BIN)/python examples/web_messenger/serve.py $(ARGS)

# What proves beyond the promises' own tests: the backends together, as many processes, and as a cluster that fails over;
# more of what chance finds, the model, tabs that are killed by the hundred, and that the simulated servers are like the real ones.
PROOF := $(addprefix tests/,acceptance/test_production.py acceptance/test_production_secrets.py clients/test_tab_kills.py contract/test_worlds.py \
    contract/test_production.py contract/test_google.py contract/test_redis_cluster.py contract/test_simulated.py \
    redis/test_cluster.py redis/test_failover.py chaos conformance fuzz powerloss proof sim/vendors)
test: $(READY) $(CLIENT_READY)  ## Run every test but those of `make proof`, in four processes: many wait for servers
	@$(BIN)/python -m pytest -q -n 4 --dist loadfile --no-loadscope-reorder $(PROOF:%=--ignore=%)

proof: $(READY) $(CLIENT_READY)  ## Run the rest of the tests: backends together, failovers, killed tabs, chaos, loss of power, fuzzing, the model, simulated vendors
	@$(BIN)/python -m pytest -q -n 3 --dist loadfile --no-loadscope-reorder $(PROOF)

LOWEST_TESTS := tests/auth/test_verifier.py tests/client tests/cli/test_data_location.py tests/contract/test_simulated.py \
    tests/redis/test_exchange.py tests/redis/test_failover.py tests/redis/test_internals.py tests/unit/test_channels.py \
    tests/unit/test_logs.py tests/unit/test_tracing.py tests/web/test_internals.py tests/web/test_limits.py tests/web/test_traced_requests.py
test-lowest: $(READY)  ## Run a part of the tests with the lowest versions that pyproject.toml allows
	@$(BIN)/uv venv -q --clear --python $(BIN)/python $(LOWEST)
	@$(BIN)/uv pip install -q --python $(LOWEST) --require-hashes -r requirements-lowest.lock
	@$(BIN)/uv pip install -q --python $(LOWEST) --no-deps --no-build-isolation -e .
	@$(LOWEST)/bin/python -m pytest -q -n 3 --dist loadfile $(LOWEST_TESTS)

SEEDS ?= 3000
START ?= 0
JOBS ?= 1
sim: $(READY)  ## Simulate SEEDS=3000 runs from START=0 on, every interleaving and fault by its seed, on JOBS=1 cores; TOPOLOGY=vendors
	@$(BIN)/python -m tests.sim --start $(START) --seeds $(SEEDS) --jobs $(JOBS) $(if $(TOPOLOGY),--topology $(TOPOLOGY))

SEED ?= 0
sim-day: $(READY)  ## Simulate a whole day of a small cluster, by SEED=0
	@$(BIN)/python -m tests.sim --day --seed $(SEED)

MINUTES ?= 1
chaos: $(READY)  ## Kill, pause and cut the real thing for MINUTES=1 from SEED=0; ARGS="--topology production --html FILE"
	@$(BIN)/python -m tests.chaos --minutes $(MINUTES) --seed $(SEED) $(ARGS)

ROUNDS ?= 20
chaos-disk: $(READY)  ## Damage the file under a router and see that nothing wrong is served: ROUNDS=20 from SEED=0
	@$(BIN)/python -m tests.chaos.disk --seed $(SEED) --rounds $(ROUNDS)

IMAGES ?= 1000
powerloss: $(READY)  ## Take the power from a router at IMAGES=1000 moments and see that nothing confirmed is lost, from SEED=0
	@$(BIN)/python -m tests.powerloss --seed $(SEED) --images $(IMAGES)

bench: $(READY)  ## Measure it (eight minutes); ARGS="send drain --quick" for a part
	@$(BIN)/python -m benchmarks $(ARGS)

bench-production: $(READY)  ## Measure it with Redis and Google's emulators (four minutes); ARGS as above
	@$(BIN)/python -m benchmarks --production $(ARGS)

mutants: $(READY)  ## Put deliberate bugs into a copy of the code; the simulation must catch each
	@$(BIN)/python -m tests.sim.mutants --write --jobs $(JOBS)

model: $(READY)  ## Check the model of the protocol with spin, within all its bounds (minutes, 4 GB)
	@$(BIN)/python -m tests.proof.spin

SECONDS ?= 60
fuzz: $(READY)  ## Fuzz envelopes, URNs, tokens and handshakes for SECONDS=60 each
	@$(BIN)/python -m tests.fuzz --seconds $(SECONDS)

lint: $(READY) $(CLIENT_READY)  ## Ruff, mypy and tsc over code, examples and tests, and words to avoid in texts
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@[ ! -e $(CLIENT_READY) ] || npm --prefix $(CLIENT) run -s build
	@$(BIN)/python -m tools.words

check: $(READY)  ## Are lock, example configuration, OpenAPI and command-line docs what the code says?
	@$(BIN)/python -m tools.check

docs: $(READY)  ## Write anew what is generated from the code
	@$(BIN)/python -m tools.check --write

RESOLVE = $(BIN)/uv pip compile -q pyproject.toml --all-extras --universal --python-version 3.11 --generate-hashes \
    --no-emit-index-url --no-emit-find-links --custom-compile-command "make lock"
lock: $(READY)  ## Resolve the dependencies anew: the newest, and the lowest that pyproject.toml allows
	@$(RESOLVE) --group dev -o requirements.lock
	@# Only what pyproject.toml names is taken at its lowest, and a new grpcio-status would have a new grpcio.
	@echo "grpcio-status<1.76" | $(RESOLVE) --group test --resolution lowest-direct -c - -o requirements-lowest.lock

dist: $(READY)  ## Build the wheel, the sdist, and the list of what a router consists of (CycloneDX), into dist/
	@rm -rf dist
	@$(BIN)/python -m hatchling build -d dist
	@$(BIN)/python -m tools.sbom dist/sealed-router.cdx.json

PYTHONS ?=
try-dist: dist  ## Install what `make dist` built with pip, pipx and uv, and try it; PYTHONS="python3.11 python3.13"
	@$(BIN)/python -m tools.trial $(PYTHONS)

clean:  ## Remove what the other targets made
	rm -rf $(VENV) $(LOWEST) dist $(CLIENT)/dist $(CLIENT)/node_modules .pytest_cache .mypy_cache .ruff_cache .hypothesis

$(READY): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "router needs Python 3.11 or newer; try: make PYTHON=python3.12")'
	@echo "setting up $(VENV) (once)"
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install -q --disable-pip-version-check --require-hashes -r requirements.lock
	@$(BIN)/python -m pip install -q --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@

# Where this fails, the tests that need it are skipped and say so; with CI=true they fail.
$(CLIENT_READY): $(CLIENT)/package.json $(CLIENT)/package-lock.json
	@if ! command -v npm >/dev/null; then echo "npm is missing: $(CLIENT) is not checked"; \
	elif echo "setting up $(CLIENT) (once)"; npm --prefix $(CLIENT) ci --silent --no-audit --no-fund; then touch $@; \
	else echo "npm ci fails: $(CLIENT) is not checked"; fi
