#!/usr/bin/env bash
# Packs everything from two folders, compares the packages byte by byte, and looks into them; then installs the command line as a tool from
# the local folder, runs it, and takes it away again.
#   packaging/check.sh [FOLDER]     leaves the packages in FOLDER; without one nothing is left
set -uo pipefail
cd "$(dirname "$0")/.."
export DOTNET_CLI_TELEMETRY_OPTOUT=1 DOTNET_NOLOGO=1 DOTNET_SKIP_FIRST_TIME_EXPERIENCE=1
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
fail() { echo "packaging: $*"; exit 1; }

# Two copies of what is tracked, at paths of different lengths, with what CMake has built.
for copy in "$work/a" "$work/second/copy"; do
  mkdir -p "$copy/build"
  git ls-files -z | tar --null -T - -cf - | tar -xf - -C "$copy" || fail "the files cannot be copied"
  [ ! -f build/libnativelora_cpu.so ] || cp build/libnativelora_cpu.so "$copy/build/"
  for project in NativeLora NativeLora.Cuda NativeLora.Imaging NativeLora.Extensions NativeLora.Cli; do
    (cd "$copy" && dotnet pack "src/$project" -c Release -m:1 -v q) >"$work/log" 2>&1 || { cat "$work/log"; fail "$project cannot be packed"; }
    if grep -E 'warning ' "$work/log"; then fail "$project packs with warnings"; fi
  done
done
dotnet run packaging/compare.cs -- "$work/a/build/packages" "$work/second/copy/build/packages" "$work" "$PWD" "$HOME/" || fail "the packages are not as they should be"

# The tool, as a user has it.
cat >"$work/nuget.config" <<CONFIG
<configuration><packageSources><clear /><add key="local" value="$work/a/build/packages" /></packageSources></configuration>
CONFIG
dotnet tool install NativeLora.Cli --tool-path "$work/tools" --configfile "$work/nuget.config" --version 0.1.0 >"$work/log" 2>&1 || { cat "$work/log"; fail "the tool cannot be installed"; }
"$work/tools/nativelora" info >"$work/info" 2>&1 || { cat "$work/info"; fail "nativelora info fails"; }
"$work/tools/nativelora" demo --help >/dev/null 2>&1 || fail "nativelora demo --help fails"
"$work/tools/nativelora" info --model "$work/none" >"$work/info" 2>&1
[ $? -eq 2 ] || { cat "$work/info"; fail "nativelora refuses no model that is not there"; }
echo "tool installed: $(du -sm "$work/tools" | cut -f1) MB"
dotnet tool uninstall NativeLora.Cli --tool-path "$work/tools" >"$work/log" 2>&1 || { cat "$work/log"; fail "the tool cannot be taken away"; }
[ ! -e "$work/tools/nativelora" ] || fail "the tool is still there"
if [ $# -gt 0 ]; then
  mkdir -p "$1" && cp "$work/a/build/packages/"* "$1" || fail "the packages cannot be left in $1"
fi
echo "packaging: ok"
