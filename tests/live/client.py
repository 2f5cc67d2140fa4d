# A UDP client that prints what each of its system calls did, one JSON line per call (see `ktrace_traffic::Datagram`).
# usage: client.py MODE SERVER PORT [NAME...]
import errno, json, os, select, socket, struct, sys, threading, time

mode, server, port = sys.argv[1], sys.argv[2], int(sys.argv[3])
names = sys.argv[4:]
family = socket.AF_INET6 if ":" in server else socket.AF_INET
sock = socket.socket(family, socket.SOCK_DGRAM)


def text(addr):
    return ("[%s]:%d" if ":" in addr[0] else "%s:%d") % addr[:2]


def now():
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME)


def tell(dir, call, remote, run):
    """Runs one call and prints it."""
    begin, number, size = now(), None, None
    try:
        size = run()
        if isinstance(size, tuple):
            size, remote = size
    except OSError as e:
        number = e.errno
    end = now()
    print(json.dumps(dict(op="datagram", dir=dir, call=call, pid=os.getpid(), tid=threading.get_native_id(),
                          local=text(sock.getsockname()), remote=remote and text(remote), bytes=size, errno=number,
                          begin_ns=begin, end_ns=end)), flush=True)
    return number


def query(i, name):
    labels = b"".join(bytes([len(l)]) + l.encode() for l in name.split("."))
    return struct.pack(">HHHHHH", i, 0x100, 1, 0, 0, 0) + labels + b"\0\0\1\0\1"


def readable():
    """Waits for the answer before the call that reads it, so that the call's time is the reading's."""
    if not select.select([sock], [], [], 10)[0]:
        sys.exit("no answer in 10 s")


def recvfrom():
    data, addr = sock.recvfrom(4096)
    return len(data), addr


def recvmsg():
    data, _, _, addr = sock.recvmsg(4096)
    return len(data), addr


if mode == "sendto":
    for i, name in enumerate(names):
        q = query(i, name)
        tell("send", "sendto", (server, port), lambda: sock.sendto(q, (server, port)))
        readable()
        tell("recv", "recvfrom", None, recvfrom)
elif mode == "sendmsg":
    for i, name in enumerate(names):
        q = query(i, name)
        tell("send", "sendmsg", (server, port), lambda: sock.sendmsg([q[:5], q[5:]], [], 0, (server, port)))
        readable()
        tell("recv", "recvmsg", None, recvmsg)
elif mode == "connected":
    sock.connect((server, port))
    for i, name in enumerate(names):
        q = query(i, name)
        tell("send", "send", (server, port), lambda: sock.send(q))
        readable()
        tell("recv", "recv", (server, port), lambda: len(sock.recv(4096)))
elif mode == "write":
    sock.connect((server, port))
    for i, name in enumerate(names):
        q = query(i, name)
        tell("send", "write", (server, port), lambda: os.write(sock.fileno(), q))
        readable()
        tell("recv", "read", (server, port), lambda: len(os.read(sock.fileno(), 4096)))
elif mode == "unconnected-recv":
    for i, name in enumerate(names):
        q = query(i, name)
        tell("send", "sendto", (server, port), lambda: sock.sendto(q, (server, port)))
        readable()
        tell("recv", "recv", None, lambda: len(sock.recv(4096)))
elif mode == "peek":
    # looks twice, reads once, then finds nothing: one receive, whatever the calls
    sock.connect((server, port))
    sock.setblocking(False)
    q = query(1, names[0])
    tell("send", "send", (server, port), lambda: sock.send(q))
    readable()
    sock.recv(4096, socket.MSG_PEEK)
    sock.recvmsg(4096, 0, socket.MSG_PEEK)
    tell("recv", "recv", (server, port), lambda: len(sock.recv(4096)))
    for _ in range(3):
        try:
            sock.recv(4096)
            sys.exit("there was something to read")
        except BlockingIOError:
            pass
elif mode == "failing":
    # nobody listens there: the answer to the first send fails the second
    sock.connect((server, port))
    tell("send", "send", (server, port), lambda: sock.send(b"x" * 31))
    select.select([sock], [], [], 10)
    assert tell("send", "send", (server, port), lambda: sock.send(b"x" * 32)) == errno.ECONNREFUSED
    # longer than any datagram
    assert tell("send", "send", (server, port), lambda: sock.send(b"x" * 65536)) == errno.EMSGSIZE
elif mode == "no-route":
    assert tell("send", "sendto", (server, port), lambda: sock.sendto(b"x" * 33, (server, port))) == errno.ENETUNREACH
elif mode == "parallel":
    # as musl does: every query to every server, the first answer to each wins, the rest is never read
    q = query(7, names[0])
    for other in (server, names[1]):
        tell("send", "sendto", (other, port), lambda: sock.sendto(q, (other, port)))
    readable()
    tell("recv", "recvfrom", None, recvfrom)
elif mode == "address-sorting":
    # as getaddrinfo does: connect a UDP socket to learn the source address, send nothing
    for addr in names:
        s = socket.socket(family, socket.SOCK_DGRAM)
        s.connect((addr, port))
        s.close()
elif mode == "timeout":
    # asks each name once and waits 300 ms for the answer
    sock.settimeout(0.3)
    for i, name in enumerate(names):
        q = query(i, name)
        tell("send", "sendto", (server, port), lambda: sock.sendto(q, (server, port)))
        try:
            sock.recvfrom(4096)
        except TimeoutError:
            pass
else:
    sys.exit("unknown mode " + mode)
