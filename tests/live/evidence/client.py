# Traffic that goes wrong, for evidence.rs.
# usage: client.py flood ADDRESS PORT SOCKETS EACH | listen ADDRESS PORT BACKLOG | connects ADDRESS PORT COUNT SECONDS
#        | hold ADDRESS PORT | fill ADDRESS PORT | drip ADDRESS PORT | abort ADDRESS PORT
# `listen`, `hold`, `fill` and `drip` print a line when they are there, and stay until they are killed. `listen` never accepts, `hold`
# accepts one connection and reads nothing.
import signal, socket, struct, sys, time

mode, address, port = sys.argv[1], sys.argv[2], int(sys.argv[3])
family = socket.AF_INET6 if ":" in address else socket.AF_INET


def stream():
    return socket.socket(family, socket.SOCK_STREAM)


def stay(word):
    print(word, flush=True)
    signal.pause()


if mode == "flood":
    sent = 0
    for _ in range(int(sys.argv[4])):
        with socket.socket(family, socket.SOCK_DGRAM) as s:
            for _ in range(int(sys.argv[5])):
                s.sendto(b"x" * 30, (address, port))
                sent += 1
    print(sent)
elif mode == "listen":
    listener = stream()
    listener.bind((address, port))
    listener.listen(int(sys.argv[4]))
    stay("open")
elif mode == "hold":
    listener = stream()
    listener.bind((address, port))
    listener.listen(5)
    print("open", flush=True)
    held, _ = listener.accept()
    stay("held")
elif mode == "connects":
    kept = []
    for _ in range(int(sys.argv[4])):
        s = stream()
        s.settimeout(float(sys.argv[5]))
        try:
            s.connect((address, port))
        except OSError:
            pass
        kept.append(s)
    print(len(kept))
elif mode == "fill":
    s = stream()
    s.connect((address, port))
    s.setblocking(False)
    try:
        while True:
            s.send(b"x" * 65536)
    except BlockingIOError:
        stay("full")
elif mode == "drip":
    s = stream()
    s.connect((address, port))
    print("open", flush=True)
    while True:
        s.send(b"x")
        time.sleep(0.1)
elif mode == "abort":
    s = stream()
    s.connect((address, port))
    s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    s.close()
