#!/usr/bin/env bash
# Compiles the kernels to the PTX that the library embeds, and those that the stand-in for the driver is tested with. With --check: fails
# where what is committed differs.
set -euo pipefail
cd "$(dirname "$0")/../.."
clang=${CLANG:-clang-19}
version=19.1.7 # another one writes another text
check=
if [ "${1:-}" = --check ]; then
  check=1
  "$clang" --version | grep -q "version $version" || check=none
fi
made=$(mktemp -d)
trap 'rm -rf "$made"' EXIT

compile() { # FROM TO [yes: nothing may be left to link]
  local from=$1 to=$2 whole=${3:-} source ptx
  rm -rf "${made:?}"/*
  for source in "$from"/*.cu; do
    ptx=$made/$(basename "$source" .cu).ptx
    "$clang" -x cuda --cuda-device-only --cuda-gpu-arch=sm_80 --cuda-feature=+ptx70 -nocudainc -nocudalib -nostdinc -nostdinc++ \
      -std=c++17 -O3 -Wall -Wextra -Werror -S "$source" -o "$ptx"
    # The compiler's remarks are a fifth of the text.
    sed -i -e 's://.*$::' -e 's/[[:space:]]*$//' -e '/^$/d' "$ptx"
    if [ -n "$whole" ] && grep '\.extern \.func' -A2 "$ptx" >&2; then
      echo "$source: calls what no kernel has" >&2
      exit 1
    fi
    if [ -z "$check" ]; then
      mkdir -p "$to"
      cp "$ptx" "$to"/
    elif [ "$check" = 1 ]; then
      cmp -s "$ptx" "$to/$(basename "$ptx")" || { echo "$to/$(basename "$ptx") is not what $source gives: run kernels/cuda/build.sh" >&2; exit 1; }
    fi
  done
  # PTX without a source.
  for ptx in "$to"/*.ptx; do
    [ -e "$made/$(basename "$ptx")" ] && continue
    [ -z "$check" ] || { echo "$ptx has no source: run kernels/cuda/build.sh" >&2; exit 1; }
    rm "$ptx"
  done
}

compile kernels/cuda src/NativeLora.Cuda/Ptx yes
compile tests/cuda-emulator/faults tests/cuda-emulator/faults
compile tests/cuda-emulator/snippets tests/cuda-emulator/snippets
if [ "$check" = none ]; then
  echo "$clang is not $version: everything compiles; whether the committed PTX comes from it is not checked"
fi
