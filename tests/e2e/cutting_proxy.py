"""A proxy before a broker that loses answers: what the broker has done, its client does not hear of.

It forwards whole frames. Of the answers to Produce it cuts some, by a seed: the connection is closed in both directions in place of the answer.
"""

import random
import socket
import struct
import threading

PRODUCE = 0


class CuttingProxy:
    """Listens at `address` (host:port) and forwards to `target`, which may be changed; brokers must advertise the address of the proxy."""

    def __init__(self, seed, cuts_max, chance):
        self.choose, self.cuts_max, self.chance = random.Random(seed), cuts_max, chance
        self.target, self.cuts, self.lock, self.open = None, 0, threading.Lock(), set()
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.address = "127.0.0.1:%d" % self.listener.getsockname()[1]
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self):
        while True:
            try:
                client, _ = self.listener.accept()
            except OSError:
                return
            try:
                host, port = self.target.split(":")
                broker = socket.create_connection((host, int(port)), timeout=10)
            except OSError:
                client.close()
                continue
            broker.settimeout(None)
            for side in (client, broker):
                side.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            with self.lock:
                self.open |= {client, broker}
            produces = set()
            threading.Thread(target=self.carry, args=(client, broker, lambda frame: self.note(frame, produces)), daemon=True).start()
            threading.Thread(target=self.carry, args=(broker, client, lambda frame: self.spares(frame, produces)), daemon=True).start()

    def note(self, frame, produces):
        key, _, correlation = struct.unpack(">hhi", frame[4:12])
        if key == PRODUCE:
            produces.add(correlation)
        return True

    def spares(self, frame, produces):
        (correlation,) = struct.unpack(">i", frame[4:8])
        if correlation not in produces:
            return True
        with self.lock:
            cut = self.cuts < self.cuts_max and self.choose.random() < self.chance
            self.cuts += cut
        return not cut

    def carry(self, source, sink, passes):
        try:
            while True:
                head = self.read(source, 4)
                frame = head + self.read(source, struct.unpack(">i", head)[0])
                if not passes(frame):
                    break
                sink.sendall(frame)
        except OSError:
            pass
        for side in (source, sink):
            try:
                side.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass
            side.close()
        with self.lock:
            self.open -= {source, sink}

    @staticmethod
    def read(source, size):
        data = b""
        while len(data) < size:
            piece = source.recv(size - len(data))
            if not piece:
                raise ConnectionError
            data += piece
        return data

    def cut_all(self):
        """Closes every connection, as a load balancer does that changes its mind."""
        with self.lock:
            sides = list(self.open)
        for side in sides:
            try:
                side.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass

    def close(self):
        self.listener.close()
        self.cut_all()
