# The index of tasks. `make test` is what CI runs.

SCHEMATHESIS := 4.32.5
CHECK_JSONSCHEMA := 0.39.0
KUBERNETES_VALIDATE := 1.37.0
CARGO_DENY := 0.20.2
CARGO_CYCLONEDX := 0.5.9
OHA := 1.16.0
VENV := target/venv
PYTHON_TOOLS := $(VENV)/schemathesis-$(SCHEMATHESIS)-check-jsonschema-$(CHECK_JSONSCHEMA)-kubernetes-validate-$(KUBERNETES_VALIDATE)
CARGO_TOOLS := target/tools
DENY := $(CARGO_TOOLS)/cargo-deny-$(CARGO_DENY)
CYCLONEDX := $(CARGO_TOOLS)/cargo-cyclonedx-$(CARGO_CYCLONEDX)
PEERS := target/peers/oha-$(OHA)/bin
# Tests wait for servers, leases and browsers for much of their time.
TEST_THREADS ?= $(shell echo $$((2 * $$(nproc))))
SUDO := $(shell test "$$(id -u)" = 0 || echo sudo)

.PHONY: help
help: ## Say what there is
	@grep -hE '^[a-z]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z]+):.*## /\1\t/' | expand -t 12

.PHONY: demo
demo: ## Show who oversells and who does not
	cargo run --release

# What has failed is said once more at the end, of all that was run.
.PHONY: test
test: tools lint ## Install what the tests need, check the form, and run every test
	@mkdir -p target
	bash -o pipefail -c 'RUST_TEST_THREADS=$(TEST_THREADS) \
		cargo test --workspace --locked --no-fail-fast 2>&1 | tee target/test.log' || { \
		sed -n '/^failures:$$/,/^test result/p' target/test.log | grep -vE '^ +([0-9]+:|at) '; exit 1; }

.PHONY: lint
lint: $(PYTHON_TOOLS) ## Check the form: formatting, clippy and the documentation with warnings denied, the files to deploy with
	$(VENV)/bin/check-jsonschema --builtin-schema vendor.compose-spec docker-compose.yml
	$(VENV)/bin/check-jsonschema --schemafile loadtest/docs/shop.schema.json loadtest/examples/*/shop.toml
	$(VENV)/bin/kubernetes-validate --quiet --strict service/deploy/kubernetes/*.yaml service/deploy/kubernetes/secret.yaml.example
	cargo fmt --all --check
	cargo clippy --workspace --all-targets --locked -- -D warnings
	RUSTDOCFLAGS='-D warnings' cargo doc --workspace --no-deps --document-private-items --locked

.PHONY: tools
tools: $(PYTHON_TOOLS) servers ## Install what the tests need

# Debian's packages. Nothing is started: the tests run servers of their own.
.PHONY: servers
servers:
	@ls /usr/lib/postgresql/*/bin/postgres >/dev/null 2>&1 || $(MAKE) --no-print-directory install PACKAGE=postgresql
	@test -x /usr/sbin/pgbouncer || $(MAKE) --no-print-directory install PACKAGE=pgbouncer
	@command -v redis-server >/dev/null || $(MAKE) --no-print-directory install PACKAGE=redis-server
	@test -f /usr/share/java/zookeeper.jar || $(MAKE) --no-print-directory install PACKAGE=zookeeper
	@command -v etcd >/dev/null || $(MAKE) --no-print-directory install PACKAGE=etcd-server
	@command -v chromium >/dev/null || $(MAKE) --no-print-directory install PACKAGE=chromium
	@test -x /usr/sbin/mariadbd || $(MAKE) --no-print-directory install PACKAGE=mariadb-server
	@command -v wrk >/dev/null || $(MAKE) --no-print-directory install PACKAGE=wrk
	@ls /usr/lib/*/faketime/libfaketime.so.1 >/dev/null 2>&1 || $(MAKE) --no-print-directory install PACKAGE=libfaketime
	@command -v chromedriver >/dev/null || $(MAKE) --no-print-directory install PACKAGE=chromium-driver
	@command -v promtool >/dev/null || $(MAKE) --no-print-directory install PACKAGE=prometheus
	@command -v systemd-analyze >/dev/null || $(MAKE) --no-print-directory install PACKAGE=systemd
	@command -v setpriv >/dev/null && command -v prlimit >/dev/null || { echo 'install util-linux'; exit 1; }

# RUNLEVEL=1 and the file keep the packages from starting their servers.
.PHONY: install
install:
	@command -v apt-get >/dev/null || { echo 'install $(PACKAGE), as Debian 12 has it'; exit 1; }
	$(SUDO) mkdir -p /etc/postgresql-common
	test -f /etc/postgresql-common/createcluster.conf || \
		echo 'create_main_cluster = false' | $(SUDO) tee /etc/postgresql-common/createcluster.conf >/dev/null
	$(SUDO) apt-get update -qq
	$(SUDO) env RUNLEVEL=1 DEBIAN_FRONTEND=noninteractive apt-get install -y -qq \
		-o Dpkg::Options::=--force-confold $(PACKAGE)

# What we depend on: licences, sources, and versions that come twice, by deny.toml.
.PHONY: deny
deny: $(DENY)/bin/cargo-deny ## Check the dependencies: their licences, where they come from, which come twice
	PATH="$(CURDIR)/$(DENY)/bin:$$PATH" cargo deny --locked check bans licenses sources

# The database of advisories is a repository that has to be reached, so it is not among the checks above.
.PHONY: advisories
advisories: $(DENY)/bin/cargo-deny ## Check the dependencies for known vulnerabilities; fetches the database of advisories
	PATH="$(CURDIR)/$(DENY)/bin:$$PATH" cargo deny --locked check advisories

# The lint knows since when each function of the standard library is there, and the dependencies say themselves what they
# need; rust-version is the measure of both.
.PHONY: msrv
msrv: ## Check that no more than the Rust of rust-version is used
	cargo clippy --workspace --all-targets --locked -- -D clippy::incompatible_msrv
	cargo test --locked -p order-service --test operation dependencies

# One file for each program: target/sbom/NAME.cdx.json, in CycloneDX.
.PHONY: sbom
sbom: $(CYCLONEDX)/bin/cargo-cyclonedx ## List all that the programs are made of, as CycloneDX has it
	PATH="$(CURDIR)/$(CYCLONEDX)/bin:$$PATH" cargo cyclonedx --format json --spec-version 1.5 --no-build-deps
	mkdir -p target/sbom
	mv service/order-service.cdx.json loadtest/loadtest.cdx.json target/sbom/
	rm loadtest/lab/stocklock-lab.cdx.json

# BENCH is for arguments such as '--only hot --rounds 5 --markdown bench.md'.
.PHONY: bench
bench: servers $(PEERS)/oha ## Measure the speed beside other programs': the only place where it is asserted
	cargo build --profile dist --locked
	PATH="$(CURDIR)/$(PEERS):$$PATH" target/dist/loadtest bench $(BENCH)

# SOAK is for arguments such as '--strategies redis --orders 100000'.
.PHONY: soak
soak: servers ## Sell 10^6 orders over 1,000 faults under each lock, until something breaks or nothing has: about an hour
	cargo build --profile dist --locked
	target/dist/loadtest soak $(SOAK)

# Installs each shop from its registry, once. SHOPS_ARGUMENTS is for arguments such as '--repeat 3 --rungs 8,40'.
.PHONY: shops
shops: servers ## Buy in the shops of other people, and say which of them oversell: some minutes
	cargo build --profile dist --locked
	loadtest/examples/all $(SHOPS_ARGUMENTS)

.PHONY: screenshots
screenshots: servers ## Take the pictures of the dashboard anew
	mkdir -p loadtest/screenshots
	STOCKLOCK_SCREENSHOTS=$(CURDIR)/loadtest/screenshots \
		cargo test --locked -p loadtest --test dashboard the_page_can_be_looked_at

# PREFIX=/usr/local is for all users.
PREFIX ?= $(HOME)/.local
.PHONY: manual
manual: ## Install manual pages, and completions for bash, zsh and fish, below PREFIX (~/.local)
	cargo build --release --workspace --locked
	mkdir -p $(PREFIX)/share/bash-completion/completions $(PREFIX)/share/zsh/site-functions \
		$(PREFIX)/share/fish/vendor_completions.d
	for program in loadtest order-service; do \
		target/release/$$program man $(PREFIX)/share/man/man1 && \
		target/release/$$program completions bash > $(PREFIX)/share/bash-completion/completions/$$program && \
		target/release/$$program completions zsh > $(PREFIX)/share/zsh/site-functions/_$$program && \
		target/release/$$program completions fish > $(PREFIX)/share/fish/vendor_completions.d/$$program.fish \
			|| exit 1; \
	done

.PHONY: drawings
drawings: ## Draw the modules in ARCHITECTURE.md anew
	STOCKLOCK_DRAW=1 cargo test --locked -p loadtest --test architecture

.PHONY: openapi
openapi: ## Write openapi.yaml anew
	cargo run --locked -p order-service -- openapi > openapi.yaml

.PHONY: schema
schema: ## Write the schema of described shops anew
	cargo run --locked -p loadtest -- schema > loadtest/docs/shop.schema.json

# The load generator that ours is measured against; pgbench comes with PostgreSQL, and wrk is Debian's.
$(PEERS)/oha:
	cargo install oha --version $(OHA) --locked --root $(dir $(PEERS))

$(PYTHON_TOOLS):
	@python3 -c 'import ensurepip, venv' 2>/dev/null || { \
		$(MAKE) --no-print-directory install PACKAGE='python3 python3-venv'; }
	python3 -m venv --clear $(VENV)
	$(VENV)/bin/pip install --quiet --disable-pip-version-check \
		schemathesis==$(SCHEMATHESIS) check-jsonschema==$(CHECK_JSONSCHEMA) \
		kubernetes-validate==$(KUBERNETES_VALIDATE)
	touch $@

$(DENY)/bin/cargo-deny:
	cargo install cargo-deny --version $(CARGO_DENY) --locked --root $(DENY)

$(CYCLONEDX)/bin/cargo-cyclonedx:
	cargo install cargo-cyclonedx --version $(CARGO_CYCLONEDX) --locked --root $(CYCLONEDX)
