"""Single Kafka requests, word by word: any request of any version that kafka-python's schemas know, and the whole answer as a dict.

The schemas are Kafka's own, and the encoder is not ours.
"""

import itertools
import socket
import struct

from kafka.record.default_records import DefaultRecordBatchBuilder

SECONDS_MAX = 60


class Closed(ConnectionError):
    """The broker has closed the connection in place of an answer."""


class Wire:
    """One connection."""

    def __init__(self, address, client_id="wire"):
        host, port = address.rsplit(":", 1)
        self.socket = socket.create_connection((host, int(port)), timeout=SECONDS_MAX)
        self.client_id = client_id
        self.numbers = itertools.count(1)

    def send(self, request, version):
        """Sends a request and doesn't wait; `receive` takes the answers in order. Returns what `receive` needs."""
        request.API_VERSION = version
        number = next(self.numbers)
        request.with_header(correlation_id=number, client_id=self.client_id)
        self.socket.sendall(request.encode(header=True, framed=True))
        return request, number

    def receive(self, sent):
        return self.answer(sent).to_dict()

    def answer(self, sent):
        """The answer itself, in which bytes are bytes: as a dict they are text."""
        request, number = sent
        (length,) = struct.unpack(">i", self.exactly(4))
        frame = self.exactly(length)
        answer = request.header.get_response_class().decode(frame, version=request.API_VERSION, header=True)
        assert answer.header.correlation_id == number, (answer.header, number)
        return answer

    def call(self, kind, version, **fields):
        """The answer to a request of this kind, as a dict; fields are those of its schema, structures among them are dicts."""
        return self.receive(self.send(built(kind, fields), version))

    def exactly(self, count):
        data = b""
        while len(data) < count:
            more = self.socket.recv(count - len(data))
            if not more:
                raise Closed(f"the broker closed the connection after {len(data)} of {count} bytes")
            data += more
        return data

    def close(self):
        self.socket.close()


def built(kind, fields):
    """A message of `kind` with these fields, and the defaults of its schema."""
    made = {}
    for name, value in fields.items():
        field = kind.fields[name]
        if field.is_struct_array() and value is not None:
            value = [built(field.data_class, element) for element in value]
        elif field.is_struct() and value is not None:
            value = built(field.data_class, value)
        made[name] = value
    return kind(**made)


def batch(values, producer_id=-1, epoch=-1, sequence=-1, timestamp=1_700_000_000_000, key=None, transactional=False):
    """A record batch of magic 2, as kafka-python makes it."""
    builder = DefaultRecordBatchBuilder(magic=2, compression_type=0, is_transactional=transactional, producer_id=producer_id,
                                        producer_epoch=epoch, base_sequence=sequence, batch_size=1 << 30)
    for offset, value in enumerate(values):
        assert builder.append(offset, timestamp, key, value, []) is not None
    return bytes(builder.build())
