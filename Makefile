# Every target is a line that you could type yourself. Building needs no root; only
# the packages that the host lacks do, and the line that installs them is printed.

# The exact toolchain: the same commit gives the same image. Go fetches it if the
# installed one is another.
export GOTOOLCHAIN := go1.26.8
export GOFLAGS := -buildvcs=false

# What building and running need from the host, and what the tests judge with.
RUN_TOOLS  := qemu-system-x86 qemu-utils gcc libc6-dev pkg-config debian-archive-keyring ca-certificates
TEST_TOOLS := dosfstools mtools gdisk cryptsetup-bin erofs-utils e2fsprogs libseccomp-dev qemu-system-arm gcc-aarch64-linux-gnu u-boot-tools skopeo iproute2 zstd bash-completion fish zsh

.PHONY: run test check e2e cuts bench image clean deps test-deps help

help:
	@sed -n 's/^## //p' Makefile

## make run     build the image, boot it in QEMU, serve the example container until Ctrl-C
run: deps
	go build -ldflags "-X main.release=$(shell git describe --always --dirty --abbrev=12 2>/dev/null)" -o bin/kogge ./cmd/kogge
	bin/kogge vm run

## make test    everything that CI runs
test: deps test-deps
	go vet ./...
	go run ./.ci/testrun -timeout 80m ./...

## make check   vet and the tests that need neither root nor a virtual machine, in seconds
check:
	go vet ./...
	go run honnef.co/go/tools/cmd/staticcheck@v0.8.2 ./...
	go test -short ./boards/... ./image/... ./init/... ./update/... ./cmd/...

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

## make e2e     every script, the long ones too
e2e: deps test-deps
	KOGGE_CUT_SEEDS=1000 go test -count=1 -timeout 60m -run PowerCut ./update/slot
	KOGGE_E2E=all go test -count=1 -run UBootImage ./image
	KOGGE_E2E=all go test -count=1 -timeout 240m -v ./qemu/e2e

## make cuts    boot what every write of a whole update leaves, on UEFI and U-Boot (an hour and more)
cuts: deps test-deps
	KOGGE_E2E=all KOGGE_CUTS=every go test -count=1 -timeout 300m -v -run TestUpdateCuts ./qemu/e2e
