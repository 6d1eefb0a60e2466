#!/usr/bin/env bash
# Runs a command under mpirun with each rank in a network namespace and with a host name of its own, joined by a bridge, so that all that
# the ranks say to one another goes through interfaces whose counters can be read. Needs root, iproute2 and Open MPI.
#
# usage: mpi-namespaces.sh RANKS COMMAND...
# The last line of the output is JSON: bytes that the ranks' interfaces sent and received, from before mpirun to its end.
set -euo pipefail

ranks=$1; shift
id=nl$$
net=10.$((RANDOM % 100 + 100)).$((RANDOM % 250))
work=$(mktemp -d)

clean() {
    set +e
    for ((r = 0; r < ranks; r++)); do
        for pid in $(ip netns pids "$id-$r" 2>/dev/null); do kill -9 "$pid" 2>/dev/null; done
        ip netns del "$id-$r" 2>/dev/null
    done
    ip link del "$id" 2>/dev/null
    rm -rf "$work"
}
trap clean EXIT
trap 'exit 143' TERM INT

ip link add "$id" type bridge
ip link set "$id" up
hosts=
for ((r = 0; r < ranks; r++)); do
    ip netns add "$id-$r"
    ip link add "$id-v$r" type veth peer name eth0 netns "$id-$r"
    ip link set "$id-v$r" master "$id" up
    ip -n "$id-$r" addr add "$net.$((r + 1))/24" dev eth0
    ip -n "$id-$r" link set eth0 up
    ip -n "$id-$r" link set lo up
    hosts+="${hosts:+,}$net.$((r + 1)):1"
done

# What ssh is on real machines: its first argument is the host, the rest a command for the shell there.
cat > "$work/agent" <<AGENT
#!/usr/bin/env bash
host=\$1; shift
rank=\$((\${host##*.} - 1))
exec ip netns exec "$id-\$rank" unshare --uts bash -c "hostname $id-\$rank; \$*"
AGENT
chmod +x "$work/agent"

count() { # rx or tx
    local sum=0 r
    for ((r = 0; r < ranks; r++)); do
        sum=$((sum + $(ip -n "$id-$r" -s -j link show eth0 | tr ',{' '\n\n' | awk -v want="$1" '/"rx":/ {side = "rx"} /"tx":/ {side = "tx"} /"bytes":/ && side == want {sub(/.*:/, ""); print; exit}')))
    done
    echo "$sum"
}

sent=$(count tx) received=$(count rx)
export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
set +e
ip netns exec "$id-0" unshare --uts bash -c 'hostname "$0"; exec "$@"' "$id-0" \
    mpirun --host "$hosts" -n "$ranks" --bind-to none --mca odls_base_sigkill_timeout 3 \
    --mca plm_rsh_agent "$work/agent" --mca btl tcp,self --mca pml ob1 \
    --mca btl_tcp_if_include eth0 --mca oob_tcp_if_include eth0 "$@"
code=$?
set -e
echo "{\"ranks\": $ranks, \"exit\": $code, \"sent\": $(($(count tx) - sent)), \"received\": $(($(count rx) - received))}"
exit "$code"
