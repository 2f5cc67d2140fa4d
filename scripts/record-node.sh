#!/bin/sh
# record-node.sh DIRECTORY: makes a network namespace with what the tests of src/node look for, and records what the kernel says
# of it (record_node.py). Removes the namespace again.

set -eu
name="ktrec-$$"
ip netns add "$name"
trap 'ip netns del "$name"' EXIT
inside() { ip netns exec "$name" "$@"; }
inside ip link set lo up
inside ip link add v0 type veth peer name v1
inside ip addr add 10.9.0.1/24 dev v0
inside ip addr add fd09::1/64 dev v0 nodad
inside ip link set v0 up
inside ip link set v1 up
inside tc qdisc add dev v0 root handle 7: tbf rate 8kbit burst 2000 limit 3000
inside ip route add blackhole 10.66.0.0/16
inside ip rule add from 10.9.0.0/24 table 100 priority 1000
inside ip route add default via 10.9.0.2 dev v0 table 100
inside ip route add 10.44.0.0/16 nexthop via 10.9.0.2 dev v0 nexthop via 10.9.0.3 dev v0
inside ip neigh add 10.9.0.2 lladdr 02:00:00:00:00:02 dev v0
inside ip neigh add 10.9.0.99 nud failed dev v0 || true
inside python3 -c 'import socket
to = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
for n in range(40):
    try: to.sendto(bytes(600), ("10.9.0.2", 9))
    except OSError: pass
try: socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b"x", ("10.9.0.99", 9))
except OSError: pass
import time
end = time.monotonic() + 30
import subprocess
while "FAILED" not in subprocess.run(["ip", "neigh", "show", "10.9.0.99"], capture_output=True, text=True).stdout:
    if time.monotonic() > end: raise SystemExit("no neighbour has failed")
    time.sleep(0.1)'
inside python3 "$(dirname "$0")/record_node.py" "$1"
