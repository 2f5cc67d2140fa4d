# A TCP connection that is opened by one program and used by another one. Says "open" once it stands, "PID NAME" of the program
# that has used it, and goes on each time that DIRECTORY has a file of the name "open" or "used"; what uses it closes it when
# the server has.
# usage: client.py HOW SERVER PORT DIRECTORY
#   message   it is sent to another process (SCM_RIGHTS), and closed by the first one
#   fork      a child inherits it, and the first one closes it
#   exec      the same process becomes another program
#   activate  the other way round: listens there; says "open", "PID NAME" of the program that has accepted and answered
# usage: client.py used|accept FD DIRECTORY
import os, socket, sys, time


def go_on(directory, word):
    while not os.path.exists(os.path.join(directory, word)):
        time.sleep(0.01)


def tell():
    with open("/proc/self/comm") as comm:
        print(os.getpid(), comm.read().strip(), flush=True)


def use(sock, directory):
    sock.sendall(b"." * 100)
    left = 100
    while left:
        left -= len(sock.recv(left))
    tell()
    go_on(directory, "used")
    if sock.recv(1):
        sys.exit("the server has not closed")
    sock.close()


def opened(server, port, directory):
    sock = socket.create_connection((server, int(port)))
    print("open", flush=True)
    go_on(directory, "open")
    return sock


def accept(listener):
    sock = listener.accept()[0]
    while True:
        data = sock.recv(1000)
        if not data:
            break
        sock.sendall(data)
    tell()
    sock.close()


def become(how, sock, directory):
    sock.set_inheritable(True)
    renamed = os.path.join(directory, "renamed")
    os.symlink(sys.executable, renamed)
    os.execv(renamed, [renamed, "-I", "-S", "-c", os.environ["SCRIPT"], how, str(sock.fileno()), directory])


def child(run):
    pid = os.fork()
    if not pid:
        run()
        os._exit(0)
    return pid


def ended(pid):
    sys.exit(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))


how, *args = sys.argv[1:]
if how == "used":
    use(socket.socket(fileno=int(args[0])), args[1])
elif how == "accept":
    accept(socket.socket(fileno=int(args[0])))
elif how == "message":
    here, there = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    pid = child(lambda: use(socket.socket(fileno=socket.recv_fds(there, 1, 1)[1][0]), args[2]))
    sock = opened(*args)
    socket.send_fds(here, [b"."], [sock.fileno()])
    sock.close()
    ended(pid)
elif how == "fork":
    sock = opened(*args)
    pid = child(lambda: use(sock, args[2]))
    sock.close()
    ended(pid)
elif how == "exec":
    become("used", opened(*args), args[2])
elif how == "activate":
    with socket.create_server((args[0], int(args[1]))) as listener:
        print("open", flush=True)
        go_on(args[2], "open")
        pid = child(lambda: become("accept", listener, args[2]))
        ended(pid)
