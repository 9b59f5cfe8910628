# Two commands to know: `make demo` and `make test`.  `make` alone lists the rest.
# PYTHON=… names the Python to use; without it the newest suitable one on PATH is taken.

PYTHON =
ARGS =
ONLY =
bin = .venv/bin
pytest = $(bin)/python -m pytest
# One more than there are processors: some test always waits for a time-out.
parallel = --numprocesses 3 --dist loadfile --no-loadscope-reorder
# Tests of running servers and of peers.
beyond = bench compat deploy faults

# The tests start thousands of processes; each would compile all of Headrace anew.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help demo serve test test-fast test-ceph test-long check bench docs compatibility lock clean components

help: ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1|\2/p' Makefile | while IFS='|' read -r target what; \
	do printf '%-18s %s\n' "$$target" "$$what"; done

demo: .venv/.ready ## see it work: a real image up and down, verified, and what it costs
	@$(bin)/python -m demo

serve: .venv/.ready ## run the service on 127.0.0.1:9292 (ARGS="--port 8080 …" for its options)
	@exec $(bin)/headrace serve $(ARGS)

test: .venv/.ready .venv-clients/.ready .venv-glance/.ready .venv-keystone/.ready .venv-swift/.ready components ## install what the tests need, run all but the campaigns
	$(pytest) $(parallel) $(ARGS)

test-fast: .venv/.ready ## those that need no peer and take no time; nothing is installed
	$(pytest) $(parallel) -m 'not slow and not long and not ceph' $(addprefix --ignore=tests/,$(beyond)) $(ARGS)

test-ceph: .venv/.ready .venv-glance/.ready ## stores in a real Ceph, which is installed and run for the tests (root)
	@tools/components ceph
	$(pytest) -m ceph $(ARGS)

test-long: .venv/.ready .venv-clients/.ready .venv-glance/.ready .venv-swift/.ready components ## the campaigns: kills, faults, big images
	$(pytest) -m long $(ARGS)

check: .venv/.ready ## lint, format, types, layers, and the references' freshness
	$(bin)/ruff check
	$(bin)/ruff format --check
	$(bin)/mypy
	$(bin)/lint-imports --no-logo
	$(bin)/python -m tools.reference --check

bench: .venv/.ready .venv-clients/.ready .venv-glance/.ready .venv-keystone/.ready .venv-swift/.ready ## the figures of docs/benchmarks.md anew (ONLY=download: one part)
	$(bin)/python -m benchmarks $(ONLY) $(ARGS)

docs: .venv/.ready ## write docs/reference anew
	$(bin)/python -m tools.reference

compatibility: .venv/.ready .venv-clients/.ready .venv-glance/.ready .venv-keystone/.ready ## run OpenStack's clients, and write down what of them works
	HEADRACE_WRITE_COMPATIBILITY=1 $(pytest) tests/compat -k "not differential and not of_glance and not two_way_door" $(ARGS)

lock: ## resolve the dependencies anew (maintainers; needs uv)
	tools/lock

clean: ## remove the environments and everything generated
	rm -rf /var/tmp/headrace-tests-$$(id -u) .venv .venv-clients .venv-glance .venv-keystone .venv-swift .cache .mypy_cache .ruff_cache .pytest_cache \
	    .hypothesis .import_linter_cache build dist
	find src tests tools demo benchmarks -name __pycache__ -type d -prune -exec rm -rf {} +

components: .venv/.ready
	@tools/components
	@$(bin)/python -m tools.system_environment >/dev/null || true # the tests that need it say so

# An environment is made anew when its lock changes; Headrace itself is put in as an editable install.
.venv/.locked: requirements/dev.lock
	@tools/environment .venv requirements/dev.lock $(PYTHON)
	@touch $@

.venv/.ready: .venv/.locked pyproject.toml
	@$(bin)/python -m pip install -qq --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $@

.venv-clients/.ready: requirements/clients.lock
	@tools/environment .venv-clients requirements/clients.lock $(PYTHON)
	@touch $@

.venv-glance/.ready: requirements/glance.lock
	@tools/environment .venv-glance requirements/glance.lock $(PYTHON)
	@touch $@

.venv-keystone/.ready: requirements/keystone.lock
	@tools/environment .venv-keystone requirements/keystone.lock $(PYTHON)
	@touch $@

.venv-swift/.ready: requirements/swift.lock
	@tools/environment .venv-swift requirements/swift.lock $(PYTHON)
	@touch $@
