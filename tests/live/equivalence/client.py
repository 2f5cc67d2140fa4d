# Every kind of traffic once, step by step: no step begins before the answer to the one before is read, and every step has a
# port of its own on the server. Says "old" once its first connection stands, "all" once all else is done and one more is open;
# goes on each time that DIRECTORY has a file of that name.
# usage: client.py SERVER4 SERVER6 DIRECTORY
import errno, os, select, socket, struct, sys, time

v4, v6, directory = sys.argv[1:]
TCP, UDP = socket.SOCK_STREAM, socket.SOCK_DGRAM
BYTES = 100


def opened(server, kind):
    return socket.socket(socket.AF_INET6 if ":" in server else socket.AF_INET, kind)


def say(word):
    print(word, flush=True)
    while not os.path.exists(os.path.join(directory, word)):
        time.sleep(0.01)


def ready(sock, write=False):
    if not any(select.select([] if write else [sock], [sock] if write else [], [], 20)):
        sys.exit("nothing in 20 s")


def whole(sock, count):
    while count:
        got = len(sock.recv(count))
        if not got:
            sys.exit("the server has ended the connection")
        count -= got


def talk(sock):
    """A request, and an answer as long."""
    sock.sendall(b"." * BYTES)
    whole(sock, BYTES)


def connected(server, port):
    sock = opened(server, TCP)
    sock.connect((server, port))
    return sock


def fails(number, call):
    try:
        call()
    except OSError as e:
        if e.errno != number:
            raise
    else:
        sys.exit("no %s" % errno.errorcode[number])


def tcp(server):
    with connected(server, 8001) as sock:
        talk(sock)
    with connected(server, 8002) as sock:
        if sock.recv(1):
            sys.exit("8002 does not close")
    with connected(server, 8003) as sock:
        talk(sock)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    with opened(server, TCP) as sock:
        fails(errno.ECONNREFUSED, lambda: sock.connect((server, 9001)))
    with opened(server, TCP) as sock:
        sock.setblocking(False)
        fails(errno.EINPROGRESS, lambda: sock.connect((server, 8004)))
        ready(sock, write=True)
        sock.setblocking(True)
        talk(sock)


def udp(server):
    with opened(server, UDP) as sock:
        sock.sendto(b"." * 51, (server, 7001))
        ready(sock)
        sock.recvfrom(BYTES)
    with opened(server, UDP) as sock:
        sock.connect((server, 7001))
        sock.send(b"." * 52)
        ready(sock)
        sock.recv(BYTES)
    with opened(server, UDP) as sock:
        sock.sendto(b"." * 53, (server, 7001))
        ready(sock)
        sock.recv(BYTES)
    with opened(server, UDP) as sock:
        sock.sendto(b"." * 54, (server, 53))
        ready(sock)
        sock.recvfrom(BYTES)
    with opened(server, UDP) as sock:
        # nobody listens there: what comes back fails the next call, which a send is, and then a receive
        sock.connect((server, 9003))
        sock.send(b"." * 55)
        ready(sock)
        fails(errno.ECONNREFUSED, lambda: sock.send(b"." * 56))
        sock.send(b"." * 57)
        ready(sock)
        fails(errno.ECONNREFUSED, lambda: sock.recv(BYTES))
        # longer than any datagram
        fails(errno.EMSGSIZE, lambda: sock.send(b"." * 65536))


old = connected(v4, 8009)
talk(old)
say("old")

talk(old)
old.close()
with socket.socket(socket.AF_INET, TCP) as listener:
    listener.bind(("127.0.0.1", 8010))
    listener.listen(7)
# no answer comes back to its first SYN, and a reset to the next one; the others go on meanwhile
lost = opened(v4, TCP)
lost.setblocking(False)
fails(errno.EINPROGRESS, lambda: lost.connect((v4, 8008)))
with opened(v4, TCP) as sock:
    sock.setblocking(False)
    fails(errno.EINPROGRESS, lambda: sock.connect((v4, 9004)))
for server in v4, v6:
    tcp(server)
    udp(server)
with socket.socket(socket.AF_INET6, UDP) as sock:
    for port in 7001, 7002:
        sock.sendto(b"." * 58, ("::ffff:" + v4, port))
        ready(sock)
        sock.recvfrom(BYTES)
# its first SYN is lost, its request, the answer to it
for port in 8005, 8006, 8007:
    with connected(v4, port) as sock:
        talk(sock)
ready(lost, write=True)
if lost.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) != errno.ECONNREFUSED:
    sys.exit("8008 is not reset")
lost.close()
held = connected(v4, 8011)
talk(held)
waiting = opened(v4, UDP)
waiting.sendto(b"." * 59, (v4, 7001))
ready(waiting)
say("all")
