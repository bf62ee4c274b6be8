# Two commands matter: `make demo` and `make test`. Everything they need is installed on the way.
#
# PYTHON=...  interpreter to use (3.10 or newer)      PREFIX=...  folder for environments
# tools/env.sh says where the environment goes by default, and why.

SHELL := /bin/sh
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory
export PYTHON PREFIX

# Empty when the environment could not be made; the recipe then fails with its message.
IN_ENV = env=$$(tools/env.sh) && PATH="$$env/bin:$$PATH"
TIERS := unit hub hub5 contract process accounts docker configs vm demo

.PHONY: help
help: ## this list
	@grep -hE '^[a-z%-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 16

.PHONY: env
env: ## make the environment, or bring it up to date, and print its folder
	@tools/env.sh

.PHONY: demo
demo: ## start a hub on http://127.0.0.1:8000 (BACKEND=docker, CHECK=1, PORT=N, IMAGE=NAME)
	@[ "$$(id -u)" != 0 ] || [ "$(BACKEND)" = docker ] || tools/packages.sh sudo
	@$(IN_ENV) && image= && \
	    if [ "$(BACKEND)" = docker ]; then image=$$(PYTHON="$$env/bin/python" tools/image.sh "$(IMAGE)"); fi && \
	    exec "$$env/bin/workshop-hub" demo $(if $(BACKEND),--backend "$(BACKEND)") \
	    $(if $(CHECK),--check) $(if $(PORT),--port "$(PORT)") $${image:+--image "$$image"}

.PHONY: test
test: ## run everything that this machine can run, and list what it could not, and why
	@$(IN_ENV) && exec "$$env/bin/python" tests/tiers.py lint $(TIERS)

.PHONY: $(TIERS:%=test-%)
$(TIERS:%=test-%): test-%:
	@$(IN_ENV) && exec "$$env/bin/python" tests/tiers.py $* -- $(ARGS)
test-%: ## run one tier: unit hub hub5 contract process accounts docker configs vm demo (ARGS="-k name" for pytest)

# Options of tests/bench: ROUNDS=3 USERS="12 100" ONLY="warm local" PARTS="storm idle start logins" IDLE=300
# EVERYONE=1 (all contenders at 100 users, too) OUT=FOLDER (a whole run goes to docs/bench)
.PHONY: bench
bench: ## start classes through our spawner and others, and compare (ONLY="warm sudo", ROUNDS=1; root)
	@[ "$$(id -u)" != 0 ] || tools/packages.sh sudo
	@env=$$(tools/env.sh bench) && cd tests && exec "$$env/bin/python" -m bench \
	    $(if $(ONLY),--only $(ONLY)) $(if $(USERS),--users $(USERS)) \
	    $(if $(ROUNDS),--rounds $(ROUNDS)) $(if $(PARTS),--parts $(PARTS)) \
	    $(if $(IDLE),--idle $(IDLE)) $(if $(EVERYONE),--everyone) $(if $(OUT),--out "$(abspath $(OUT))")

.PHONY: coverage
coverage: ## print the line coverage of the last run of tests
	@$(IN_ENV) && "$$env/bin/python" -m coverage report --skip-empty

.PHONY: lint
lint: ## style, types and dependencies
	@$(IN_ENV) && exec "$$env/bin/python" tests/tiers.py lint

.PHONY: format
format: ## let ruff put the code into shape
	@$(IN_ENV) && "$$env/bin/ruff" check -q --fix . && "$$env/bin/ruff" format -q .

.PHONY: docs
docs: ## write the generated reference pages, and the site into site/
	@$(IN_ENV) && "$$env/bin/python" tools/reference.py && "$$env/bin/mkdocs" build -q --strict

.PHONY: lock
lock: ## lock the versions of all dependencies (UPGRADE=1: take the newest)
	@$(IN_ENV) && tools/lock.sh $(if $(UPGRADE),--upgrade)

.PHONY: clean
clean: ## remove what was made in the checkout; environments outside of it stay
	rm -rf .venv .venv-hub5 .lock-.venv* .coverage* .mypy_cache .ruff_cache .pytest_cache .import_linter_cache site dist
	find src tests tools -name __pycache__ -type d -prune -exec rm -rf {} +
