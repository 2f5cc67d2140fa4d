"""Traffic of `make run`: a shop's `checkout` service, and the servers that it talks to.

    demo_traffic.py server ADDRESS READY_FILE     DNS on port 53 and an echo service on port 8080, until killed
    demo_traffic.py client LIVE_DNS DEAD_DNS      about 7 s of lookups and requests, then it ends

Runs inside the namespaces that demo.sh made. Every failure but the one on show ends it with a traceback.
"""

import selectors
import socket
import struct
import sys
import time

DNS_PORT = 53
ECHO_PORT = 8080
ANSWER_TTL_S = 60


def name_process(name):
    with open("/proc/self/comm", "w") as comm:
        comm.write(name)


def query(ident, host):
    labels = b"".join(bytes([len(part)]) + part.encode() for part in host.split("."))
    return struct.pack(">6H", ident, 0x0100, 1, 0, 0, 0) + labels + b"\0" + struct.pack(">2H", 1, 1)


def answer(message):
    head = message[:2] + struct.pack(">5H", 0x8180, 1, 1, 0, 0)
    record = struct.pack(">3HIH", 0xC00C, 1, 1, ANSWER_TTL_S, 4) + socket.inet_aton("10.199.0.1")
    return head + message[12:] + record


def serve(address, ready_file):
    name_process("shop-server")
    dns = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    dns.bind((address, DNS_PORT))
    echo = socket.create_server((address, ECHO_PORT))
    events = selectors.DefaultSelector()
    events.register(dns, selectors.EVENT_READ)
    events.register(echo, selectors.EVENT_READ)
    with open(ready_file, "w"):
        pass
    while True:
        for key, _ in events.select():
            if key.fileobj is dns:
                message, peer = dns.recvfrom(512)
                dns.sendto(answer(message), peer)
            else:
                with echo.accept()[0] as connection:
                    connection.sendall(connection.recv(4096))


def look_up(server, ident, timeout_s):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.settimeout(timeout_s)
        sock.connect((server, DNS_PORT))
        sock.send(query(ident, "payments.shop.internal"))
        try:
            sock.recv(512)
        except socket.timeout:
            return False
        return True


def request(server):
    with socket.create_connection((server, ECHO_PORT), timeout=2) as sock:
        sock.sendall(b"order " * 20)
        while sock.recv(4096):
            pass


def run_client(live, dead):
    name_process("checkout")
    for ident in range(1, 8):
        # as a resolver does: the first server first, the next one when it does not answer; the last
        # lookups skip the dead one, so that its queries are old enough at the window's end to be judged
        if ident <= 5:
            look_up(dead, ident, timeout_s=1.0)
        look_up(live, ident, timeout_s=1.0)
        for _ in range(4):
            request(live)
            time.sleep(0.05)


def main(role, first, second):
    if role == "server":
        serve(first, second)
    else:
        run_client(first, second)


if __name__ == "__main__":
    if len(sys.argv) != 4 or sys.argv[1] not in ("server", "client"):
        sys.exit(__doc__)
    main(*sys.argv[1:])
