# The usual ways into berth. `make demo` shows it, `make test` proves it.

GO       ?= go
VERSION  ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo dev)
COMMIT   ?= $(shell git rev-parse --short=8 HEAD 2>/dev/null || echo HEAD)
LDFLAGS  := -X main.version=$(VERSION) -X main.commit=$(COMMIT)
LINT     := github.com/golangci/golangci-lint/v2/cmd/golangci-lint@v2.15.0

.PHONY: build test test-all unit e2e vm check lint bench demo nightly deps test-deps vm-deps clean

build: bin/berth

bin/berth: FORCE
	$(GO) build -trimpath -ldflags '$(LDFLAGS)' -o $@ ./cmd/berth
FORCE:

# Unit, race, property and command line tests, then real engines and real clients: what takes less than ten minutes on two cores. Left out are
# end-to-end tests of 20 seconds and more; more packages are tested at once than there are cores, since much of it is waiting.
test: SHORT = -short
test: WIDE = -p $(shell echo $$(($$(nproc) * 3 / 2)))
test: test-deps check unit e2e

# Everything that must hold.
test-all: test-deps check unit e2e

unit:
	$(GO) test -race $(SHORT) $(WIDE) -timeout 15m ./...

# Needs root: it starts real Docker Engines, in namespaces of its own, in several shards at once (BERTH_E2E_SHARDS).
e2e: test-deps
	$(GO) test -tags e2e $(SHORT) -count 1 -timeout 30m ./test/e2e

# Virtual machines through their lives, by drivers qemu, virtualbox and libvirt: half an hour where there is no KVM. What boots is made of Debian's
# packages first. VM_LIMIT is how long a test may take before it gives up without a verdict; 1 is as long as it likes.
VM_TESTS ?= TestVirtual
VM_LIMIT ?= 1
vm: vm-deps
	BERTH_E2E_VM=$(VM_LIMIT) $(GO) test -tags e2e -count 1 -timeout 90m -v -run '$(VM_TESTS)' ./test/e2e

# The same with Engine 29, buildx, Compose 5 and others, which are built first, and with long rounds: hours.
nightly: vm-deps
	@test/nightly

check:
	@test -z "$$(gofmt -l cmd internal test)" || { gofmt -l cmd internal test; echo 'gofmt would change these'; exit 1; }
	$(GO) vet ./...
	$(GO) vet -tags e2e ./test/e2e

lint:
	$(GO) run $(LINT) run ./...

# How fast the hot paths are, and what a manager costs beside what bounds it. See docs/performance.md.
bench:
	$(GO) test -run '^$$' -bench . -benchmem -benchtime 200ms ./internal/api ./internal/fleet ./internal/proxy ./internal/rawjson ./internal/schedule
	$(GO) run ./test/bench

demo: deps build
	@test/demo

# What a fresh Debian lacks. Says first what it installs.
deps:
	@test/deps dockerd:docker.io iptables:iptables busybox:busybox-static

test-deps:
	@test/deps dockerd:docker.io iptables:iptables busybox:busybox-static docker-compose:docker-compose \
		sshd:openssh-server ip:iproute2 nsenter:util-linux ssh:openssh-client systemd-nspawn:systemd-container mmdebstrap:mmdebstrap pgrep:procps curl:curl \
		etcd:etcd-server java:default-jre-headless /usr/share/zookeeper/bin/zkServer.sh:zookeeper \
		qemu-system-x86_64:qemu-system-x86 qemu-img:qemu-utils libvirtd:libvirt-daemon \
		/usr/lib/*/libvirt/connection-driver/libvirt_driver_qemu.so:libvirt-daemon-driver-qemu

vm-deps: test-deps
	@test/deps grub-mkimage:grub-common /usr/lib/grub/i386-pc/boot.img:grub-pc-bin mke2fs:e2fsprogs

clean:
	rm -rf bin
