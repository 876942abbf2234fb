"""What the Python clients of test_members.py share: records as lines of words, and standard input as it comes.

Lines are "timestamp key value name=value...": bytes as x and hexadecimal digits, null as -.
"""

import queue
import sys
import threading

PARTITIONS = 4
SECONDS_MAX = 60


def word(value):
    return "-" if value is None else "x" + value.hex()


def bytes_of(text):
    return None if text == "-" else bytes.fromhex(text[1:])


def records():
    """The records of standard input: (timestamp, key, value, [(name, value)])."""
    for text in sys.stdin:
        time_ms, key, value, *headers = text.rstrip("\n").split(" ")
        pairs = [header.split("=") for header in headers]
        yield int(time_ms), bytes_of(key), bytes_of(value), [(bytes_of(name).decode(), bytes_of(content)) for name, content in pairs]


def line(partition, offset, time_ms, key, value, headers):
    pairs = (f"{word(name.encode())}={word(content)}" for name, content in headers or ())
    return " ".join([str(partition), str(offset), str(time_ms), word(key), word(value), *pairs])


def numbers():
    """A queue of the numbers of standard input, and None at its end."""
    waiting = queue.Queue(1000)

    def read():
        for text in sys.stdin:
            waiting.put(int(text))
        waiting.put(None)

    threading.Thread(target=read, daemon=True).start()
    return waiting


def until_end():
    """An event that is set when standard input ends."""
    ended = threading.Event()

    def read():
        sys.stdin.read()
        ended.set()

    threading.Thread(target=read, daemon=True).start()
    return ended


def main(**verbs):
    verb, *arguments = sys.argv[1:]
    verbs[verb](*arguments)
