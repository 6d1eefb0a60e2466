#!/usr/bin/env bash
# Peak memory of whole processes: each job in this engine alone and in libtorch alone, and the ratio.
# usage: bench/peak.sh FOLDER-OF-NativeLora.Bench.Torch [JOB[:fp32|bf16]...]
# A prefix for the command, such as a script that makes libtorch load, goes into PREFIX.
set -euo pipefail
bin=${1:?usage: bench/peak.sh FOLDER-OF-NativeLora.Bench.Torch [JOB...]}
shift
[ $# -gt 0 ] || set -- minilm:fp32 minilm:bf16 bertbase:fp32 bertbase:bf16 ragged:fp32 smollm2:fp32 smollm2:bf16 selection:fp32 selection:bf16
threads=${THREADS:-2}
field() { sed -n "s/.*\"$2\":\([0-9.]*\).*/\1/p" <<< "$1"; }
echo "| job | this engine MiB | predicted MiB | libtorch MiB (malloc as it is) | libtorch MiB (memory kept) | this engine / libtorch, the smaller |"
echo "| --- | --- | --- | --- | --- | --- |"
for job in "$@"; do
  what=${job%%:*}
  precision=fp32
  [[ $job == *:* ]] && precision=${job##*:}
  # shellcheck disable=SC2086
  measure() { ${PREFIX:-} dotnet "$bin/NativeLora.Bench.Torch.dll" compare --what "$what" --precision "$precision" --threads "$threads" "$@" | tail -1; }
  ours=$(measure --only ours)
  plain=$(measure --only torch --malloc default)
  kept=$(measure --only torch --malloc keep)
  awk -v job="$what $precision" -v ours="$(field "$ours" peak_mib)" -v predicted="$(field "$ours" predicted_mib)" \
    -v plain="$(field "$plain" peak_mib)" -v kept="$(field "$kept" peak_mib)" \
    'BEGIN { least = plain < kept ? plain : kept; printf "| %s | %s | %s | %s | %s | %.2f |\n", job, ours, predicted, plain, kept, ours / least }'
done
echo
echo "VmHWM at the end of a process that does only this job, .NET included. libtorch's is counted anew after its weights are in place, and both are after random weights are written: what that takes does not count. Predicted: the plan's total."
