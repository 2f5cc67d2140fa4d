# Servers and clients of the fault corpus, each with the ways in which such programs go wrong.
# usage: actor.py MODE KEY=VALUE...
# A server prints a line when it is there and stays; a client prints how often it got what it wanted, and how often not.
# All numbers are ms or counts unless the key says otherwise.
import signal, socket, struct, sys, threading, time

mode = sys.argv[1]
given = dict(pair.split("=", 1) for pair in sys.argv[2:])


def number(key, default=0):
    return int(given.get(key, default))


at, port = given.get("at", ""), number("port")
ok, failed = 0, 0


def family(address):
    return socket.AF_INET6 if ":" in address else socket.AF_INET


def pause(ms):
    if ms:
        time.sleep(ms / 1000)


def reset(s):
    """Closes it with a reset."""
    s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    s.close()


def stay(word):
    print(word, flush=True)
    signal.pause()


# --- TCP servers: a request ends with a line feed, and so does its answer ---

def listener():
    s = socket.socket(family(at), socket.SOCK_STREAM)
    s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    s.bind((at, port))
    s.listen(number("backlog", 128))
    return s


def answer(s, turn):
    """One connection: `think` before each answer of `reply` bytes; `idle` ends it with a reset, or with `gently` as usual, and
    `abort` every so many-th one with a reset."""
    s.settimeout(number("idle") / 1000 or None)
    try:
        while True:
            got = s.recv(65536)
            if not got:
                break
            if not got.endswith(b"\n"):
                continue
            if number("abort") and turn % number("abort") == 0:
                return reset(s)
            pause(number("think"))
            s.sendall(b"y" * number("reply", 100) + b"\n")
            if given.get("then") == "close":
                break
    except TimeoutError:
        if not number("gently"):
            return reset(s)
    except OSError:
        pass
    s.close()


def serve():
    pause(number("after"))
    s, turn = listener(), 0
    print("open", flush=True)
    while True:
        pause(number("accept"))
        stream, _ = s.accept()
        turn += 1
        threading.Thread(target=answer, args=(stream, turn), daemon=True).start()


def deaf():
    """Accepts, and reads nothing, or a little now and then."""
    s, kept = listener(), []
    print("open", flush=True)

    def sip(stream):
        while number("sip"):
            pause(number("every", 100))
            if not stream.recv(number("sip")):
                break

    while True:
        stream, _ = s.accept()
        kept.append(stream)
        threading.Thread(target=sip, args=(stream,), daemon=True).start()


def hoard():
    """Reads to the end of each connection, and closes none."""
    s, kept = listener(), []
    print("open", flush=True)

    def drain(stream):
        while stream.recv(65536):
            pass

    while True:
        stream, _ = s.accept()
        kept.append(stream)
        threading.Thread(target=drain, args=(stream,), daemon=True).start()


# --- TCP clients ---

def count(worked):
    global ok, failed
    if worked:
        ok += 1
    else:
        failed += 1


def connect(to=None, host=None):
    s = socket.socket(family(host or at), socket.SOCK_STREAM)
    s.settimeout(number("timeout", 5000) / 1000)
    s.connect((host or at, to or port))
    return s


def request(s):
    s.sendall(b"x" * number("bytes", 80) + b"\n")
    while True:
        got = s.recv(65536)
        if not got:
            raise ConnectionError("ended")
        if got.endswith(b"\n"):
            return


def ask():
    """`count` requests with a `pause` after each, over a connection of its own each, or one that is kept (`keep`); every
    `odd_every`-th one goes to the port `odd` instead. With `peers` they take turns."""
    kept, peers = None, given.get("peers", at).split(",")
    for i in range(number("count", 1)):
        try:
            is_odd = number("odd_every") and i % number("odd_every") == number("odd_every") // 2
            s = kept or connect(number("odd") if is_odd else port, peers[i % len(peers)])
            request(s)
            count(True)
            if number("keep"):
                kept = s
            elif number("reset"):
                reset(s)
            else:
                s.close()
        except OSError:
            count(False)
            kept = None
        pause(number("pause"))
    if number("stay"):
        stay("%d %d" % (ok, failed))


def probe():
    """Connects and closes at once, as a TCP health check does."""
    for _ in range(number("count", 1)):
        try:
            s = connect()
            reset(s) if number("reset") else s.close()
            count(True)
        except OSError:
            count(False)
        pause(number("pause"))


def hold():
    """Opens connections, each after a `pause`, and keeps them; with `say` asks one request over each."""
    kept = []
    for _ in range(number("count", 1)):
        try:
            s = connect()
            kept.append(s)
            if number("say"):
                request(s)
            count(True)
        except OSError:
            count(False)
        pause(number("pause"))
    stay("%d %d" % (ok, failed))


def crowd():
    """`waves` of `count` requests at once, each over a connection of its own that is given up after `timeout`; with `keep` each
    of the crowd uses one connection for all its requests."""
    def one(waves):
        s = None
        for _ in range(waves):
            try:
                s = s if s and number("keep") else connect()
                request(s)
                count(True)
                if not number("keep"):
                    s.close()
            except OSError:
                count(False)
                s = None
            if number("keep"):
                pause(number("pause"))

    waves, each = (1, number("waves", 1)) if number("keep") else (number("waves", 1), 1)
    for _ in range(waves):
        threads = [threading.Thread(target=one, args=(each,)) for _ in range(number("count", 1))]
        for t in threads:
            t.start()
        for t in threads:
            t.join()
        pause(number("pause"))


def pour():
    """Sends as much as is taken for so many ms; `ping` bytes at a time with a `pause` in between, if that is given."""
    s = connect()
    s.settimeout(0.3)
    end = time.monotonic() + number("for", 3000) / 1000
    while time.monotonic() < end:
        try:
            count(s.send(b"x" * number("ping", 65536)) > 0)
        except TimeoutError:
            count(False)
        except OSError:
            break
        pause(number("pause"))
    if number("stay"):
        stay("%d %d" % (ok, failed))
    reset(s)


def leave():
    """Gives up each connect of its own will after `timeout`, or each request that is not answered by then."""
    for _ in range(number("count", 1)):
        try:
            s = connect()
            request(s)
            count(True)
            s.close()
        except OSError:
            count(False)
        finally:
            pause(number("pause"))


def scan():
    """Tries ports one after the other, each once."""
    for p in range(port, port + number("count", 1)):
        s = socket.socket(family(at), socket.SOCK_STREAM)
        s.settimeout(1)
        count(s.connect_ex((at, p)) == 0)
        s.close()
        pause(number("pause"))


def idle():
    """Opens connections, says a request, waits `idle`, says another one; again and again."""
    for _ in range(number("count", 1)):
        try:
            with connect() as s:
                request(s)
                pause(number("idle"))
                request(s)
            count(True)
        except OSError:
            count(False)


def sessions():
    """So many `idle` sessions side by side, each begun `pause` after the one before."""
    threads = []
    for _ in range(number("sessions", 1)):
        threads.append(threading.Thread(target=idle))
        threads[-1].start()
        pause(number("pause"))
    for t in threads:
        t.join()


def eyeballs():
    """Tries the address `first`, and `head` ms later also `at`; the first that stands wins, the other is given up."""
    for _ in range(number("count", 1)):
        a = socket.socket(family(given["first"]), socket.SOCK_STREAM)
        a.setblocking(False)
        a.connect_ex((given["first"], port))
        pause(number("head", 60))
        won = connect()
        a.close()
        request(won)
        won.close()
        count(True)
        pause(number("pause"))


# --- DNS: the shortest answer to a query is the query with one bit set ---

def dns():
    """Answers each query after `delay`, but for every `skip`-th one."""
    s = socket.socket(family(at), socket.SOCK_DGRAM)
    s.bind((at, port or 53))
    print("open", flush=True)
    turn = 0
    while True:
        query, client = s.recvfrom(4096)
        turn += 1
        if number("skip") and turn % number("skip") == 0:
            continue
        reply = query[:2] + bytes([query[2] | 0x80]) + query[3:]
        if number("delay"):
            threading.Timer(number("delay") / 1000, s.sendto, (reply, client)).start()
        else:
            s.sendto(reply, client)


def sink():
    """Takes datagrams, and never says anything."""
    s = socket.socket(family(at), socket.SOCK_DGRAM)
    s.bind((at, port))
    print("open", flush=True)
    while True:
        s.recv(4096)


def query(ident, name, kind):
    labels = b"".join(bytes([len(part)]) + part.encode() for part in name.split("."))
    return struct.pack(">HHHHHH", ident & 0xFFFF, 0x100, 1, 0, 0, 0) + labels + b"\0" + struct.pack(">HH", kind, 1)


def attempt(server, queries, seconds, to=0):
    """Whether all of these queries, sent from one new socket, are answered in time."""
    with socket.socket(family(server), socket.SOCK_DGRAM) as s:
        s.settimeout(seconds)
        try:
            s.connect((server, to or port or 53))
            for q in queries:
                s.send(q)
            for _ in queries:
                s.recv(4096)
            return True
        except OSError:
            return False


def resolve():
    """Asks `servers` one after the other for each name, as glibc does: A, and with `both` AAAA, on one socket."""
    servers = given["servers"].split(",")
    for i in range(number("count", 1)):
        name = given.get("name", "svc%d.shop.test" % (i % 7))
        queries = [query(2 * i, name, 1)] + [query(2 * i + 1, name, 28)] * number("both")
        order = [server for _ in range(number("attempts", 2)) for server in servers]
        count(any(attempt(server, queries, number("timeout", 2000) / 1000) for server in order))
        pause(number("pause"))


def parallel():
    """Asks all servers at once for each name, as musl does: the first answer wins, what comes later is never read."""
    servers = given["servers"].split(",")
    for i in range(number("count", 1)):
        with socket.socket(family(servers[0]), socket.SOCK_DGRAM) as s:
            s.settimeout(number("timeout", 2000) / 1000)
            for server in servers:
                s.sendto(query(i, "svc%d.shop.test" % (i % 7), 1), (server, port or 53))
            try:
                s.recvfrom(4096)
                count(True)
            except TimeoutError:
                count(False)
        pause(number("pause"))


def both():
    """A lookup and a connect, one after the other, each for itself."""
    server = given["servers"]
    for i in range(number("count", 1)):
        count(attempt(server, [query(i, "svc%d.shop.test" % i, 1)], number("timeout", 2000) / 1000, 53))
        try:
            with connect() as s:
                request(s)
            count(True)
        except OSError:
            count(False)


def sort():
    """As getaddrinfo sorts addresses: connects a UDP socket to each to learn the source address, and sends nothing."""
    for _ in range(number("count", 1)):
        for address in given["servers"].split(","):
            with socket.socket(family(address), socket.SOCK_DGRAM) as s:
                s.connect((address, port or 53))
        pause(number("pause"))


def lookup():
    """Asks the C library, by this mount namespace's resolv.conf."""
    for i in range(number("count", 1)):
        try:
            socket.getaddrinfo(given["name"].replace("%", str(i)), 80)
            count(True)
        except OSError:
            count(False)
        pause(number("pause"))
    if number("stay"):
        stay("%d %d" % (ok, failed))


def spin():
    """Uses a CPU up for so many ms, with an open connection to show where it belongs."""
    try:
        kept = connect()
    except OSError:
        kept = None
    end = time.monotonic() + number("for", 3000) / 1000
    while time.monotonic() < end:
        pass
    del kept


globals()[mode]()
print("%d %d" % (ok, failed), flush=True)
