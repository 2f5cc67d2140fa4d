# Another network: packets that the router sends into the interface NAME come back after DELAY ms, or never if DELAY is `never`.
# To the kernel a packet that is read here has arrived: nothing on this machine dropped it.
# usage: far.py NAME DELAY
import collections, fcntl, os, select, struct, subprocess, sys, time

name, delay = sys.argv[1], sys.argv[2]
tun = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
IFF_TUN, IFF_NO_PI, TUNSETIFF = 1, 0x1000, 0x400454CA
fcntl.ioctl(tun, TUNSETIFF, struct.pack("16sH", name.encode(), IFF_TUN | IFF_NO_PI))
subprocess.run(["ip", "link", "set", name, "txqueuelen", "5000", "up"], check=True)
print("open", flush=True)
waiting = collections.deque()
while True:
    patience = max(0, waiting[0][0] - time.monotonic()) if waiting else None
    if select.select([tun], [], [], patience)[0]:
        try:
            packet = os.read(tun, 65535)
            if delay != "never":
                waiting.append((time.monotonic() + int(delay) / 1000, packet))
        except BlockingIOError:
            pass
    while waiting and waiting[0][0] <= time.monotonic():
        os.write(tun, waiting.popleft()[1])
