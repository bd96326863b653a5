# Every target is a line that you could type yourself. Building needs no root; only
# the packages that the host lacks do, and the line that installs them is printed.

# The exact toolchain: the same commit gives the same image. Go fetches it if the
# installed one is another.
export GOTOOLCHAIN := go1.26.8
export GOFLAGS := -buildvcs=false

# What building and running need from the host, and what the tests judge with.
RUN_TOOLS  := qemu-system-x86 qemu-utils gcc libc6-dev pkg-config debian-archive-keyring ca-certificates
TEST_TOOLS := dosfstools mtools gdisk cryptsetup-bin erofs-utils e2fsprogs libseccomp-dev qemu-system-arm gcc-aarch64-linux-gnu u-boot-tools skopeo iproute2 nftables zstd bash-completion fish zsh dnsmasq-base radvd gnupg python3-cryptography

.PHONY: run fleet test check e2e cuts fuzz bench sim image clean deps test-deps help

help:
	@sed -n 's/^## //p' Makefile

## make run     build the image, boot it in QEMU, serve the example container until Ctrl-C
run: deps
	go build -ldflags "-X main.release=$(shell git describe --always --dirty --abbrev=12 2>/dev/null)" -o bin/kogge ./cmd/kogge
	bin/kogge vm run

## make fleet   boot three such nodes (N=3), found a fleet of them, show how it is, until Ctrl-C
N ?= 3
fleet: deps
	go build -ldflags "-X main.release=$(shell git describe --always --dirty --abbrev=12 2>/dev/null)" -o bin/kogge ./cmd/kogge
	bin/kogge vm fleet --nodes $(N)

# The longest package comes first: others wait for clocks while its machines compute.
## make test    everything that CI runs; what has not ended after 75 minutes is ended
test: deps test-deps
	go vet ./... ./.ci/testrun
	go run ./.ci/testrun -limit=75m -- -timeout=74m ./qemu/e2e ./... ./.ci/testrun

# The programs of this module. runc is not one of them: it is C in part, and wants a C
# compiler for each architecture.
PROGRAMS = $(shell go list -f '{{if eq .Name "main"}}{{.ImportPath}}{{end}}' ./...)

## make check   vet and the quick tests of each package, and whether the programs are right for arm and riscv64
check:
	go vet ./... ./.ci/testrun
	go run honnef.co/go/tools/cmd/staticcheck@v0.8.2 ./... ./.ci/testrun
	GOARCH=arm GOARM=7 go vet $(PROGRAMS)
	GOARCH=riscv64 go vet $(PROGRAMS)
	go test -short -p=$(shell echo $$((2*$$(nproc)))) ./... ./.ci/testrun

## make image   build kogge.img for BOARD (default qemu-x86_64)
BOARD ?= qemu-x86_64
image: deps
	go run ./cmd/kogge image build --board $(BOARD) -o kogge.img

deps:
	@./.ci/packages $(RUN_TOOLS)
test-deps:
	@./.ci/packages $(TEST_TOOLS)

## make bench   boot times, memory, sizes, build times (half an hour; BENCH=-only=boot,-n=3 for less)
bench: deps test-deps
	go run ./qemu/bench -json bench.json $(BENCH)

## make sim     whole fleets that vote, by seed: loss, cuts of power, liars (an hour; PART=1 to 3 for one part)
## make sim PART=explore     every order of what can happen between four seats, and the faults that this finds (half an hour; WALK=2h for more)
## make sim HOSTILE=34..40    so many seats in a hundred lie: what breaks then, and by which seed first
SIM_PARTS = $(if $(HOSTILE),-hostile=$(HOSTILE),$(patsubst %,-part=%,$(if $(filter rest,$(PART)),1 2 3,$(filter-out explore,$(PART)))))
WALK ?= 7m
sim:
	$(if $(HOSTILE),,$(if $(filter rest explore,$(PART)),KOGGE_SIM=$(WALK) go test -count=1 -timeout=0 -v ./update/fleet/vote/explore))
	$(foreach part,$(SIM_PARTS),go test -count=1 -timeout=40m -v -run='^TestSimulation$$' ./update/fleet/sim -args $(part) &&) true

## make e2e     every script and every boot matrix: the parts that have not passed on this commit, one after the other
## make e2e PART=disks    one part, at most an hour (.ci/e2e.txt has them); PART=state says what has passed
PART ?= rest
e2e: deps test-deps
	go run ./.ci/testrun -e2e=$(PART)

## make fuzz    each fuzz target for a minute (some two hours; FUZZ=5m for more), with the processor time that it took
FUZZ ?= 1m
fuzz: deps test-deps
	go run ./.ci/testrun -fuzz=$(FUZZ)

## make cuts    boot what every write of a whole update leaves, on UEFI and U-Boot (an hour and more)
cuts: deps test-deps
	KOGGE_E2E=all KOGGE_CUTS=every go test -count=1 -timeout 300m -v -run TestUpdateCuts ./qemu/e2e
