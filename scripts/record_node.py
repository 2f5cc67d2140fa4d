#!/usr/bin/env python3
"""Records what the kernel says of this network namespace for the tests of src/node: raw dumps of rtnetlink and sock_diag, and files
of procfs, as files in the directory that is named. See fixtures/node/README.md."""

import os
import socket
import struct
import sys

NETLINK_ROUTE, NETLINK_SOCK_DIAG = 0, 4
REQUEST_DUMP = 0x301
RTNL = {"links": (18, 16), "addresses": (22, 8), "rules": (34, 12), "routes": (26, 12), "neighbours": (30, 12), "qdiscs": (38, 20)}
TEXTS = "net/snmp net/netstat net/snmp6 net/sockstat net/sockstat6 net/softnet_stat stat softirqs interrupts meminfo vmstat"


def dump(protocol, kind, body):
    """The messages of an answer, as they came, without the last one."""
    found = b""
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, protocol) as netlink:
        netlink.send(struct.pack("=IHHII", 16 + len(body), kind, REQUEST_DUMP, 1, 0) + body)
        while True:
            data = netlink.recv(1 << 16)
            while data:
                length, kind_of_it = struct.unpack("=IH", data[:6])
                if kind_of_it in (2, 3):
                    return found
                padded = (length + 3) & ~3
                found += data[:length].ljust(padded, b"\0")
                data = data[padded:]


def main():
    """Records, with a listener and a socket that the tests look for."""
    to = sys.argv[1]

    def write(name, data):
        with open(os.path.join(to, name), "wb") as file:
            file.write(data)

    listener, udp = socket.socket(), socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    listener.bind(("127.0.0.1", 18080))
    listener.listen(5)
    udp.bind(("127.0.0.1", 40000))
    for name, (kind, length) in RTNL.items():
        write(name + ".nl", dump(NETLINK_ROUTE, kind, bytes(length)))
    # struct inet_diag_req_v2, with INET_DIAG_SKMEMINFO of listeners
    for name, protocol, extension, states in (("listeners", 6, 1 << 6, 1 << 10), ("tcp", 6, 0, 0x1BFF), ("udp", 17, 0, 0xFFFFFFFF)):
        body = struct.pack("=BBBBI", socket.AF_INET, protocol, extension, 0, states) + bytes(48)
        write(name + ".nl", dump(NETLINK_SOCK_DIAG, 20, body))
    paths = [(path.replace("/", "."), "/proc/" + path.replace("net/", "thread-self/net/")) for path in TEXTS.split()]
    paths += [("pressure." + it, "/proc/pressure/" + it) for it in ("cpu", "memory", "io")]
    for name, path in paths + [("cpu.stat", "/sys/fs/cgroup/cpu.stat")]:
        try:
            with open(path, "rb") as file:
                write(name, file.read())
        except OSError as error:
            print("not recorded:", error, file=sys.stderr)


main()
