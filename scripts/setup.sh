#!/usr/bin/env bash
# Sets up what the Makefile's targets need. Installs only what is missing.
#
#   scripts/setup.sh packages build|test|check|bench|clang...   system packages for that kind of work
#   scripts/setup.sh venv                                       .venv with PyTorch, to build with
set -euo pipefail
cd "$(dirname "$0")/.."

PYTHON=${PYTHON:-python3}
TORCH_VERSION=2.13.0

say() { echo "== $*"; }

die() {
  echo "torch_s3io: $*" >&2
  exit 1
}

missing=()
# need PACKAGE COMMAND...: PACKAGE is missing when COMMAND fails.
need() {
  local package=$1
  shift
  "$@" >/dev/null 2>&1 || missing+=("$package")
}

has_header() { echo "#include <$1>" | g++ -E -x c++ -; }
has_fuzzer() {
  echo 'extern "C" int LLVMFuzzerTestOneInput(const char*, unsigned long) { return 0; }' |
    clang++ -fsanitize=fuzzer,address -x c++ - -o /dev/null
}
has_python_header() {
  "$PYTHON" -c 'import os, sysconfig as s; open(os.path.join(s.get_path("include"), "Python.h"))'
}

# What csrc/http needs.
check_s3() {
  [[ -z ${TORCH_S3IO_NO_S3:-} || $TORCH_S3IO_NO_S3 == 0 ]] || return 0
  need libcurl4-openssl-dev pkg-config --exists libcurl
  need libssl-dev pkg-config --exists libcrypto
}

check_packages() {
  need g++ command -v g++
  need make command -v make
  need pkg-config command -v pkg-config
  if [[ -z ${TORCH_S3IO_NO_URING:-} || $TORCH_S3IO_NO_URING == 0 ]]; then
    need liburing-dev pkg-config --exists liburing
  fi
  check_s3
  need python3 command -v "$PYTHON"
  need python3-venv "$PYTHON" -c 'import ensurepip, venv'
  need python3-dev has_python_header
  local kind
  for kind in "$@"; do
    case $kind in
      build) ;;
      test)
        need doctest-dev has_header doctest/doctest.h
        ;;
      check)
        need clang-format command -v clang-format
        need clang-tidy command -v clang-tidy
        ;;
      bench) need fio command -v fio ;;
      clang)
        need clang command -v clang++
        need libclang-rt-dev has_fuzzer
        need llvm command -v llvm-symbolizer
        ;;
      *) die "unknown kind of work: $kind" ;;
    esac
  done
}

install_packages() {
  check_packages "$@"
  ((${#missing[@]})) || return 0
  command -v apt-get >/dev/null || die "please install what Debian calls: ${missing[*]}
On Fedora: dnf install gcc-c++ make pkgconf liburing-devel libcurl-devel openssl-devel python3-devel doctest-devel clang-tools-extra fio clang llvm compiler-rt"
  local sudo=()
  if ((EUID != 0)); then
    sudo -n true 2>/dev/null || die "system packages are missing. Please run
    sudo apt-get install ${missing[*]}
and run make again."
    sudo=(sudo -n)
  fi
  say "installing system packages: ${missing[*]}"
  "${sudo[@]}" apt-get update -qq || say "apt-get update failed, going on with the lists at hand"
  "${sudo[@]}" env DEBIAN_FRONTEND=noninteractive \
    apt-get install -y -qq --no-install-recommends "${missing[@]}"
  missing=()
  check_packages "$@"
  ((${#missing[@]} == 0)) || die "still missing after installing: ${missing[*]}"
}

make_venv() {
  "$PYTHON" -c 'import sys; sys.exit(sys.version_info < (3, 10))' ||
    die "Python 3.10 or newer is needed, $PYTHON is $("$PYTHON" -V). Choose one: make PYTHON=..."
  local options=() packages=('setuptools>=77' numpy)
  if "$PYTHON" -c 'import torch; exit(tuple(map(int, torch.__version__.split(".")[:2])) < (2, 4))' \
    2>/dev/null; then
    say "making .venv over the installed PyTorch of $PYTHON"
    options=(--system-site-packages)
  else
    say "making .venv with PyTorch $TORCH_VERSION"
    packages+=("torch==$TORCH_VERSION")
  fi
  "$PYTHON" -m venv "${options[@]}" .venv
  local install=(.venv/bin/python -m pip install -q --disable-pip-version-check --no-compile)
  if ((${#options[@]})); then  # where $PYTHON is a venv itself, the option does not reach it
    "$PYTHON" -c 'import sysconfig; print(sysconfig.get_path("purelib"))' \
      >"$(.venv/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/outer.pth"
  fi
  "${install[@]}" "${packages[@]}"
  touch .venv/.ready
}

case ${1:-} in
  packages) install_packages "${@:2}" ;;
  venv) make_venv ;;
  *) die "usage: scripts/setup.sh packages build|test|check|bench|clang..., or scripts/setup.sh venv" ;;
esac
