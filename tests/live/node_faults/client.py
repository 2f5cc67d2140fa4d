# Programs that suffer, for node_faults.rs.
# usage: client.py hold ADDRESS PORT COUNT | cut ADDRESS PORT | ask ADDRESS PORT COUNT | bulk ADDRESS PORT SECONDS
#        | spin SECONDS TASKS | throttled ADDRESS PORT SECONDS | lookups COUNT
#        | segments ADDRESS PORT COUNT
# `cut` is a server that prints a line when it is there, and resets every connection when it has read something; `lookups` prints
# one when it is done, and stays.
import multiprocessing, signal, socket, struct, sys, time

mode = sys.argv[1]


def connect(seconds=5):
    s = socket.socket()
    s.settimeout(seconds)
    s.connect((sys.argv[2], int(sys.argv[3])))
    return s


def spin(seconds):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        pass


if mode == "hold":
    held, failed = [], 0
    for _ in range(int(sys.argv[4])):
        try:
            held.append(connect())
        except OSError:
            failed += 1
    print(failed)
elif mode == "cut":
    listener = socket.socket()
    listener.bind((sys.argv[2], int(sys.argv[3])))
    listener.listen(16)
    print("open", flush=True)
    while True:
        s, _ = listener.accept()
        s.recv(1)
        s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        s.close()
elif mode == "ask":
    for _ in range(int(sys.argv[4])):
        with connect() as s:
            s.sendall(b"?")
            try:
                s.recv(1)
            except ConnectionResetError:
                pass
elif mode == "bulk":
    s = connect()
    s.settimeout(0.5)
    end = time.monotonic() + float(sys.argv[4])
    while time.monotonic() < end:
        try:
            s.send(b"x" * 65536)
        except TimeoutError:
            pass
elif mode == "spin":
    tasks = [multiprocessing.Process(target=spin, args=(float(sys.argv[2]),)) for _ in range(int(sys.argv[3]))]
    for task in tasks:
        task.start()
    for task in tasks:
        task.join()
elif mode == "throttled":
    kept = connect()
    spin(float(sys.argv[4]))
elif mode == "segments":
    # UDP_SEGMENT: a datagram for each 1,000 bytes, all of them in one call
    s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    s.setsockopt(socket.IPPROTO_UDP, 103, 1000)
    for _ in range(int(sys.argv[4])):
        s.sendto(bytes(60000), (sys.argv[2], int(sys.argv[3])))
elif mode == "lookups":
    for i in range(int(sys.argv[2])):
        try:
            socket.getaddrinfo("svc%d.shop" % i, 80)
        except OSError:
            pass
    print("done", flush=True)
    signal.pause()
