# The index of tasks. `make test` is what CI runs.

SCHEMATHESIS := 4.32.5
VENV := target/venv
SUDO := $(shell test "$$(id -u)" = 0 || echo sudo)

.PHONY: help
help: ## Say what there is
	@grep -hE '^[a-z]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z]+):.*## /\1\t/' | expand -t 12

.PHONY: demo
demo: ## Show who oversells and who does not
	cargo run --release

.PHONY: test
test: tools lint ## Install what the tests need, check the form, and run every test
	cargo test --workspace --locked

.PHONY: lint
lint: ## Check the form: formatting, and clippy with warnings denied
	cargo fmt --all --check
	cargo clippy --workspace --all-targets --locked -- -D warnings

.PHONY: tools
tools: $(VENV)/schemathesis-$(SCHEMATHESIS) ## Install what the tests need

.PHONY: openapi
openapi: ## Write openapi.yaml anew
	cargo run --locked -p order-service -- openapi > openapi.yaml

$(VENV)/schemathesis-$(SCHEMATHESIS):
	@python3 -c 'import ensurepip, venv' 2>/dev/null || { \
		command -v apt-get >/dev/null || { echo 'install Python 3.10 or later with its venv module'; exit 1; }; \
		$(SUDO) apt-get update -qq && $(SUDO) apt-get install -y -qq python3 python3-venv; }
	python3 -m venv $(VENV)
	$(VENV)/bin/pip install --quiet --disable-pip-version-check schemathesis==$(SCHEMATHESIS)
	touch $@
