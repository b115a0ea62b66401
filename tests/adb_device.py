"""A stand-in for the daemon of an Android device: speaks adb's protocol over TCP, runs commands as the device would.

No real phone is behind it. Connections are CNXN without authentication; services are `shell,v2,raw:` with exit codes
and separate stderr, and `sync:` (STAT, SEND, RECV). As the real daemon does it, a program whose connection is cut is
not killed: its input ends. Run as `python adb_device.py FOLDER [ROOT]`: FOLDER/port then holds the port; with ROOT
commands run in that root file system as Android's shell user (mksh, toybox), without it on this machine. SIGUSR1 cuts
every connection. FOLDER/cut-after holds how many bytes of a push are let through before the connection is cut.
Pages: protocol.txt, SYNC.TXT, shell_protocol.h of packages/modules/adb, Android Open Source Project.
"""

from __future__ import annotations

import os
import signal
import socket
import struct
import subprocess
import sys
import threading
from contextlib import suppress
from pathlib import Path

A_CNXN, A_OPEN, A_OKAY, A_CLSE, A_WRTE = (
    struct.unpack("<I", name)[0] for name in (b"CNXN", b"OPEN", b"OKAY", b"CLSE", b"WRTE")
)
VERSION, MAX_PAYLOAD = 0x01000001, 256 * 1024
BANNER = b"device::ro.product.name=standin;ro.product.model=Stand-in;ro.product.device=standin;features=shell_v2,cmd"
STDIN, STDOUT, STDERR, EXIT, CLOSE_STDIN = range(5)
SHELL_USER = 2000  # AID_SHELL
DATA_MAX = 64 * 1024  # of one DATA of the sync service


class Stream:
    """One service that the client opened."""

    def __init__(self, connection: Connection, own: int, other: int) -> None:
        self.connection, self.own, self.other = connection, own, other
        self.acknowledged = threading.Semaphore(0)
        self.inward = threading.Condition()
        self.arrived = bytearray()
        self.open = True

    def write(self, data: bytes) -> None:
        """To the client, one message at a time: each waits until the one before was taken."""
        for start in range(0, len(data), MAX_PAYLOAD):
            if not self.open:
                raise ConnectionError
            self.connection.send(A_WRTE, self.own, self.other, data[start : start + MAX_PAYLOAD])
            self.acknowledged.acquire()

    def read(self, size: int) -> bytes:
        """Exactly so many bytes of the client's; ConnectionError when there are none any more."""
        with self.inward:
            self.inward.wait_for(lambda: len(self.arrived) >= size or not self.open)
            if len(self.arrived) < size:
                raise ConnectionError
            data = bytes(self.arrived[:size])
            del self.arrived[:size]
            return data

    def arrive(self, data: bytes) -> None:
        with self.inward:
            self.arrived += data
            self.inward.notify_all()

    def end(self) -> None:
        with self.inward:
            self.open = False
            self.inward.notify_all()
        self.acknowledged.release()


class Connection:
    """One adb server that connected."""

    def __init__(self, device: Device, peer: socket.socket) -> None:
        self.device, self.peer = device, peer
        self.writing = threading.Lock()
        self.streams: dict[int, Stream] = {}
        self.next = 1

    def send(self, command: int, first: int, second: int, data: bytes = b"") -> None:
        header = struct.pack("<6I", command, first, second, len(data), sum(data) & 0xFFFFFFFF, command ^ 0xFFFFFFFF)
        with self.writing:
            self.peer.sendall(header + data)

    def serve(self) -> None:
        with suppress(OSError):
            while True:
                command, first, second, size, _, _ = struct.unpack("<6I", self._exactly(24))
                self._message(command, first, second, self._exactly(size))
        self.cut()

    def cut(self) -> None:
        """As when the cable is pulled."""
        with suppress(OSError):
            self.peer.shutdown(socket.SHUT_RDWR)
        self.peer.close()
        for stream in list(self.streams.values()):
            stream.end()

    def _exactly(self, size: int) -> bytes:
        data = b""
        while len(data) < size:
            part = self.peer.recv(size - len(data))
            if not part:
                raise ConnectionError
            data += part
        return data

    def _message(self, command: int, first: int, second: int, data: bytes) -> None:
        if command == A_CNXN:
            self.send(A_CNXN, VERSION, MAX_PAYLOAD, BANNER)
        elif command == A_OPEN:
            self._open(first, data.rstrip(b"\0").decode())
        elif second in self.streams:
            stream = self.streams[second]
            if command == A_WRTE:
                stream.arrive(data)
                self.send(A_OKAY, stream.own, stream.other)
            elif command == A_OKAY:
                stream.acknowledged.release()
            elif command == A_CLSE:
                self.streams.pop(second).end()

    def _open(self, other: int, service: str) -> None:
        name, *options = service.partition(":")[0].split(",")  # shell,v2,TERM=xterm,raw:COMMAND
        known = {"sync": self.device.sync, "shell": self.device.shell if {"v2", "raw"} <= {*options} else None}
        run = known.get(name)
        if run is None:
            self.send(A_CLSE, 0, other)
            return
        stream = Stream(self, self.next, other)
        self.streams[stream.own] = stream
        self.next += 1
        self.send(A_OKAY, stream.own, other)
        threading.Thread(target=self._run, args=(run, stream, service.partition(":")[2]), daemon=True).start()

    def _run(self, run: object, stream: Stream, argument: str) -> None:
        with suppress(OSError):
            run(stream, argument)  # type: ignore[operator]
        if stream.open:
            with suppress(OSError):
                self.send(A_CLSE, stream.own, stream.other)
        self.streams.pop(stream.own, None)


class Device:
    """What runs the commands and keeps the files."""

    def __init__(self, folder: Path, root: str) -> None:
        self.folder, self.root = folder, root
        self.connections: list[Connection] = []
        kept = {"HOME": "/", "ANDROID_DATA": "/data", "SHELL": "/system/bin/sh"}
        android = {**kept, "PATH": "/system/bin", "TMPDIR": "/data/local/tmp", "QEMU_CPU": "cortex-a72"}
        self.environment = android if root else {**os.environ, "TMPDIR": str(folder / "tmp")}

    def listen(self) -> None:
        server = socket.create_server(("127.0.0.1", 0))
        signal.signal(signal.SIGUSR1, lambda number, frame: self.cut())
        partial = self.folder / "port.part"
        partial.write_text(str(server.getsockname()[1]))
        partial.rename(self.folder / "port")
        while True:
            connection = Connection(self, server.accept()[0])
            self.connections.append(connection)
            threading.Thread(target=connection.serve, daemon=True).start()

    def cut(self) -> None:
        while self.connections:
            self.connections.pop().cut()

    # ------------------------------------------------------------ shell

    def shell(self, stream: Stream, command: str) -> None:
        user = f"--userspec={SHELL_USER}:{SHELL_USER}"
        shell = ["/usr/sbin/chroot", user, "--groups=", self.root, "/system/bin/sh"] if self.root else ["/bin/sh"]
        process = subprocess.Popen(
            [*shell, "-c", command],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=self.environment,
            start_new_session=True,
        )
        outward = [threading.Thread(target=self._copy, args=(stream, number, pipe), daemon=True)
                   for number, pipe in ((STDOUT, process.stdout), (STDERR, process.stderr))]  # fmt: skip
        for thread in outward:
            thread.start()
        threading.Thread(target=self._feed, args=(stream, process), daemon=True).start()
        for thread in outward:
            thread.join()
        code = process.wait()
        stream.write(struct.pack("<BIB", EXIT, 1, code if code >= 0 else 128 - code))

    @staticmethod
    def _copy(stream: Stream, number: int, pipe: object) -> None:
        with suppress(OSError), pipe:  # type: ignore[attr-defined]
            while data := pipe.read1(32768):  # type: ignore[attr-defined]
                with stream.connection.device.turn(stream):
                    stream.write(struct.pack("<BI", number, len(data)) + data)

    def turn(self, stream: Stream) -> threading.Lock:
        """Two pipes, one stream."""
        return stream.__dict__.setdefault("turn", threading.Lock())

    @staticmethod
    def _feed(stream: Stream, process: subprocess.Popen[bytes]) -> None:
        """The client's input; it ends when the client ends it or is gone."""
        with suppress(OSError), process.stdin:  # type: ignore[union-attr]
            while True:
                number, size = struct.unpack("<BI", stream.read(5))
                data = stream.read(size)
                if number == CLOSE_STDIN:
                    break
                if number == STDIN:
                    process.stdin.write(data)  # type: ignore[union-attr]
                    process.stdin.flush()  # type: ignore[union-attr]

    # ------------------------------------------------------------ files

    def sync(self, stream: Stream, _: str) -> None:
        while True:
            name, size = struct.unpack("<4sI", stream.read(8))
            if name == b"QUIT":
                return
            text = stream.read(size).decode()
            if name in (b"STAT", b"RECV"):
                (self._stat if name == b"STAT" else self._receive)(stream, text)
            elif name == b"SEND":
                self._send(stream, text.rpartition(",")[0])
            else:
                self._fail(stream, f"unknown request {name!r}")

    def _path(self, name: str) -> Path:
        return Path(f"{self.root}{name}")

    def _stat(self, stream: Stream, name: str) -> None:
        try:
            found = self._path(name).lstat()
            facts = (found.st_mode, found.st_size & 0xFFFFFFFF, int(found.st_mtime))
        except OSError:
            facts = (0, 0, 0)
        stream.write(struct.pack("<4s3I", b"STAT", *facts))

    def _receive(self, stream: Stream, name: str) -> None:
        try:
            with self._path(name).open("rb") as file:
                while data := file.read(DATA_MAX):
                    stream.write(struct.pack("<4sI", b"DATA", len(data)) + data)
        except FileNotFoundError:
            return self._fail(stream, "No such file or directory")
        return stream.write(struct.pack("<4sI", b"DONE", 0))

    def _send(self, stream: Stream, name: str) -> None:
        """What arrived is removed again when it cannot be written whole, as the real daemon does it."""
        path, problem, written = self._path(name), "", 0
        limit = self.folder / "cut-after"
        with suppress(FileNotFoundError):
            path.unlink()
        try:
            file = path.open("wb", buffering=0)
        except OSError as error:
            return self._fail(stream, f"couldn't create file: {error.strerror}")
        with file:
            if self.root:
                os.fchown(file.fileno(), SHELL_USER, SHELL_USER)
            while True:
                kind, size = struct.unpack("<4sI", stream.read(8))
                if kind == b"DONE":
                    break
                data = stream.read(size)
                try:
                    rest = b"" if problem else data
                    while rest:
                        rest = rest[file.write(rest) :]
                except OSError as error:
                    problem = problem or f"{error.strerror}"
                written += size
                if limit.is_file() and written >= int(limit.read_text()):
                    limit.unlink()
                    self.cut()
        if problem:
            path.unlink()
            return self._fail(stream, problem)
        return stream.write(struct.pack("<4sI", b"OKAY", 0))

    @staticmethod
    def _fail(stream: Stream, problem: str) -> None:
        stream.write(struct.pack("<4sI", b"FAIL", len(problem)) + problem.encode())


if __name__ == "__main__":
    Device(Path(sys.argv[1]), "".join(sys.argv[2:3])).listen()
