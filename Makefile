# Everything that a fresh machine needs is installed by the targets themselves,
# through apt and npm, as root or with sudo.

GO ?= go
PKGS ?= ./...

.PHONY: build build-pkcs11 test interop lint bench fuzz setup setup-interop

build:
	$(GO) build -o bin/innate ./cmd/innate

# build-pkcs11 is the program that also reaches HSMs; it needs cgo.
build-pkcs11:
	CGO_ENABLED=1 $(GO) build -tags pkcs11 -o bin/innate-pkcs11 ./cmd/innate

# setup installs what the tests need; it does nothing where it is there already.
setup:
	@.ci/setup gcc libc6-dev iproute2 nftables nodejs npm swtpm softhsm2 systemd postgresql ldap-utils python3-psycopg2
	@.ci/node innatetest/testdata/node

# test runs everything with the race detector and ends with a list of what was skipped.
test: setup
	@.ci/gotest -race -timeout 20m $(PKGS)
	@.ci/gotest -race -tags pkcs11 ./seal/pkcs11

# interop adds the heavy outside clients.
interop: setup setup-interop
	@.ci/gotest -race -timeout 20m -run 'Interop' ./innatetest/...

setup-interop:
	@.ci/setup azure-cli python3-azure

lint:
	@test -z "$$(gofmt -l .)" || { gofmt -l .; echo 'gofmt: the files above are not formatted'; exit 1; }
	$(GO) vet ./...
	@if command -v golangci-lint >/dev/null; then golangci-lint run; else echo 'golangci-lint is not installed: its checks were not run'; fi

# bench runs the Go benchmarks, then the built program against the machine's own limits.
bench: build
	$(GO) test -run '^$$' -bench . -benchtime 1s ./...
	bin/innate bench

# fuzz gives every parser of outside input a moment each.
fuzz:
	@.ci/fuzz $(or $(FUZZTIME),10s)
