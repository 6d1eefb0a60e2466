#!/usr/bin/env bash
# Publishes samples/NativeLora.Sample.Aot as one native file, checks that it says what the same program says when it is compiled at run
# time, and prints its size, the time to the first prediction, the latency and the bytes that a call allocates.
#   samples/publish-aot.sh [MODEL-FOLDER [TEXT]]     without a folder a tiny model of random weights is written
# Ends with 0 and says so where the native compiler cannot be had; everything else that goes wrong is an error.
set -uo pipefail
cd "$(dirname "$0")/.."
export DOTNET_CLI_TELEMETRY_OPTOUT=1 DOTNET_NOLOGO=1
project=samples/NativeLora.Sample.Aot
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

case "$(uname -s)-$(uname -m)" in
  Linux-x86_64) rid=linux-x64 ;;
  Linux-aarch64) rid=linux-arm64 ;;
  *) echo "publish-aot: not tried on $(uname -s)-$(uname -m)"; exit 0 ;;
esac
linker=
for tool in clang gcc; do
  command -v "$tool" >/dev/null && { linker=$tool; break; }
done
[ -n "$linker" ] || { echo "publish-aot: skipped: neither clang nor gcc is installed, which link native files"; exit 0; }

# The compiler is a package: without it (no network, not in the cache) there is nothing to publish with.
if ! dotnet restore "$project" -r "$rid" -p:PublishAot=true -v q >"$work/restore" 2>&1; then
  if grep -qiE 'ilcompiler' "$work/restore"; then
    echo "publish-aot: skipped: the package runtime.$rid.microsoft.dotnet.ilcompiler cannot be had"
    exit 0
  fi
  cat "$work/restore"
  exit 1
fi
dotnet publish "$project" -c Release -r "$rid" -p:PublishAot=true -p:CppCompilerAndLinker="$linker" -m:1 -v q -o "$work/native" >"$work/publish" 2>&1 ||
  { cat "$work/publish"; exit 1; }
# Trimming and native compilation have nothing to say of our code.
if grep -E 'warning (IL|CS|CA)' "$work/publish"; then
  echo "publish-aot: warnings of the native compiler"
  exit 1
fi
native=$work/native/NativeLora.Sample.Aot
model=${1:-$work/tiny}
text=${2:-a bad cab faded}
[ $# -gt 0 ] || "$native" --write-tiny "$model" || exit 1
"$native" "$model" --threads 2 --bench "$text" >"$work/native.out" 2>"$work/bench" || { cat "$work/bench"; exit 1; }

dotnet build "$project" -c Release -m:1 -v q -o "$work/managed" >"$work/build" 2>&1 || { cat "$work/build"; exit 1; }
dotnet "$work/managed/NativeLora.Sample.Aot.dll" "$model" --threads 2 "$text" >"$work/managed.out" || exit 1
cat "$work/native.out"
if [ ! -s "$work/native.out" ] || ! cmp -s "$work/native.out" "$work/managed.out"; then
  echo "publish-aot: the native program's answer differs from the managed one's:"
  cat "$work/managed.out"
  exit 1
fi
printf 'size, bytes\t%s\n' "$(stat -c %s "$native")"
cat "$work/bench"
if ! grep -qP '^bytes allocated a call on ids\t0$' "$work/bench"; then
  echo "publish-aot: a call on token ids allocates"
  exit 1
fi
# Bad input is one line and exit code 2, natively too.
"$native" "$work/missing" x >"$work/none" 2>"$work/error"
[ $? -eq 2 ] && [ "$(wc -l <"$work/error")" -eq 1 ] || { echo "publish-aot: a missing model is not refused in one line:"; cat "$work/error"; exit 1; }
echo "publish-aot: ok"
