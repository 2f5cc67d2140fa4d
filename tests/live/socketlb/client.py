# Asks for addresses in every way that there is: of WEB, which is served, and CLOSED, which refuses, by TCP; of ONE, OTHER and
# DIRECT, which echo datagrams, by UDP. Fails if anything goes otherwise.
# usage: client.py WEB CLOSED ONE OTHER DIRECT, each "ADDRESS PORT"; of a v4-mapped address by v6 sockets.
import errno, select, socket, sys

web, closed, one, other, direct = ((a, int(p)) for a, p in (arg.split() for arg in sys.argv[1:]))
family = socket.AF_INET6 if ":" in one[0] else socket.AF_INET


def tcp(to, blocking):
    """The error of a connect(2), and of a second one that fetches it where the first does not wait."""
    sock = socket.socket(family, socket.SOCK_STREAM)
    sock.setblocking(blocking)
    errors = [sock.connect_ex(to)]
    if errors[0] == errno.EINPROGRESS:
        select.select([], [sock], [], 10)
        errors.append(sock.connect_ex(to))
    sock.close()
    return errors


assert tcp(web, True) == [0]
assert tcp(web, False) == [errno.EINPROGRESS, 0]
assert tcp(closed, True) == [errno.ECONNREFUSED]
assert tcp(closed, False) == [errno.EINPROGRESS, errno.ECONNREFUSED]


def answered(sock, by=None):
    sock.settimeout(10)
    got = sock.recvfrom(64)[1][:2]
    assert by is None or got == by, got


# each to one end, by name
named = socket.socket(family, socket.SOCK_DGRAM)
named.sendto(b"1", one)
answered(named, one)
named.sendmsg([b"2"], [], 0, other)
answered(named, other)
named.sendto(b"3", direct)
answered(named)

# connected, and names another one in between
connected = socket.socket(family, socket.SOCK_DGRAM)
connected.connect(one)
connected.send(b"4")
answered(connected, one)
connected.sendto(b"5", other)
connected.send(b"6")
answered(connected, one)
connected.connect(direct)
connected.send(b"7")
answered(connected)
