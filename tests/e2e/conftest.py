"""Fixtures of the end-to-end suites: real servers from the release binary, on free loopback ports, stopped by their process id.

Every suite runs on a local directory and on an S3 server (moto); failures of a bucket are made by one of our own. A server that is left running fails its test, and the peak
resident size of every broker is checked against its `--memory` when it is stopped.
"""

import gzip
import itertools
import json
import os
import select
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
import uuid
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
BINARY = Path(os.environ.get("LAKEBED_BINARY", ROOT / "target/release/lakebed"))
# Never shipped, so a debug build will do.
S3_SERVER = Path(os.environ.get("LAKEBED_S3_SERVER", Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")) / "debug/s3-server"))
READY_SECONDS = 30
# LocalStack is installed where it is missing.
INSTALL_SECONDS = 300
MEMORY_MIB = 256
# What a broker may need besides its memory budget: code, stacks and the allocator's slack.
OVERHEAD_MIB = 128

# The variables of these scripts are no settings of a broker, and it refuses what it does not know.
for name in [name for name in os.environ if name.startswith("LAKEBED_") and not name.startswith("LAKEBED_TEST_")]:
    del os.environ[name]
# What `dev` notes of itself, and what client verbs find there, is not this user's.
os.environ |= {"LAKEBED_PROFILE_DIR": tempfile.mkdtemp(prefix="lakebed-profiles-")}
# No proxy for what is on this machine, neither for clients here nor for the programs that are started.
os.environ |= {"NO_PROXY": "127.0.0.1,localhost", "no_proxy": "127.0.0.1,localhost"}


def pytest_configure(config):
    # What fails in a thread fails its test.
    config.addinivalue_line("filterwarnings", "error::pytest.PytestUnhandledThreadExceptionWarning")


def read_line(process, seconds):
    """The next line of a process's standard output, or a failure after `seconds`. Returns text."""
    deadline = time.monotonic() + seconds
    line = b""
    while not line.endswith(b"\n"):
        left = deadline - time.monotonic()
        ready, _, _ = select.select([process.stdout], [], [], max(left, 0))
        piece = os.read(process.stdout.fileno(), 1) if ready else b""
        if not piece:
            raise AssertionError(f"no line within {seconds} s (exit {process.poll()}): {line!r}")
        line += piece
    return line.decode()


class Broker:
    """One running `lakebed serve`. `kafka` and `http` are addresses as `host:port`."""

    def __init__(self, store, environment, log, memory_mib=MEMORY_MIB, arguments=(), within=()):
        self.store, self.environment, self.log, self.memory_mib = store, environment, log, memory_mib
        self.arguments, self.within = list(arguments), list(within)
        self.process = None
        self.peak_mib = 0.0
        self.kafka = self.http = "127.0.0.1:0"
        self.start()

    def start(self, same_ports=False):
        """Starts the broker on its store, on free ports or those that it had, and waits for its ready line."""
        assert self.process is None, "it is running"
        kafka, http = (self.kafka, self.http) if same_ports else ("127.0.0.1:0", "127.0.0.1:0")
        command = [*self.within, BINARY, "serve", "--store", self.store, "--kafka-listen", kafka, "--listen", http,
                   "--memory", f"{self.memory_mib}MiB", *self.arguments]
        with open(self.log, "ab") as log:
            self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, bufsize=0, env=self.environment)
        try:
            ready = json.loads(read_line(self.process, READY_SECONDS))
        except (AssertionError, ValueError) as error:
            self.kill()
            raise AssertionError(f"{error}\n{Path(self.log).read_text(errors='replace')}") from error
        assert ready["event"] == "ready", ready
        self.kafka, self.http, self.ready = ready["kafka"], ready["http"], ready

    def look_at_memory(self):
        """Notes the peak resident size of the process, if it still runs."""
        if self.process is None or self.process.poll() is not None:
            return
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        peak = [int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM:")]
        # A process that is about to end has no memory any more.
        self.peak_mib = max(self.peak_mib, *(kib / 1024 for kib in peak), 0)

    def check_memory(self):
        """Asserts that none of the broker's processes was larger than it may be."""
        self.look_at_memory()
        assert self.peak_mib <= self.memory_mib + OVERHEAD_MIB, f"{self.peak_mib:.0f} MiB resident with --memory {self.memory_mib}MiB"

    def resident_mib(self):
        """The resident size of the running broker."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmRSS:")) / 1024

    def metrics(self):
        """What the broker counts, as {'name{labels}': number}."""
        with urllib.request.urlopen(f"http://{self.http}/metrics", timeout=READY_SECONDS) as answer:
            lines = answer.read().decode().splitlines()
        return {name: float(number) for name, number in (line.rsplit(" ", 1) for line in lines if not line.startswith("#"))}

    def kill(self):
        """kill -9: what a power cut does to the process."""
        if self.process is not None:
            self.look_at_memory()
            self.process.kill()
            self.process.wait()
            self.process.stdout.close()
            self.process = None

    def stop(self):
        """Asks the broker to end, and asserts that it does so well and within its memory."""
        if self.process is None:
            return
        try:
            assert self.process.poll() is None, f"the broker ended by itself:\n{Path(self.log).read_text(errors='replace')}"
            self.check_memory()
            self.process.send_signal(signal.SIGTERM)
            assert self.process.wait(timeout=30) == 0
        finally:
            self.kill()

    def restart(self, kill=False):
        """Stops (or kills) the broker and starts it again on the same store, on new ports."""
        self.kill() if kill else self.stop()
        self.start()

    def before_reading(self):
        """Tests of clients call this between writing and reading: nothing happens here; see RereadBroker."""

    def wait_for_end(self, seconds=60):
        """Waits until the broker ends by itself. Returns its exit code and what it wrote to stderr."""
        deadline = time.monotonic() + seconds
        while self.process.poll() is None:
            assert time.monotonic() < deadline, f"it did not end within {seconds} s"
            self.look_at_memory()
            time.sleep(0.05)
        code = self.process.returncode
        self.process.stdout.close()
        self.process = None
        return code, Path(self.log).read_text(errors="replace")


class RereadBroker(Broker):
    """A broker that forgets: before reading it is started again, and serves from the store alone."""

    def before_reading(self):
        self.stop()
        self.arguments = [*self.arguments, "--no-tail"]
        self.start()


MOTO = """
import threading
from moto.s3.responses import S3Response
from moto.server import main
# moto looks whether a key is free and stores the object in two steps; S3 does it in one.
lock, put_object = threading.Lock(), S3Response.put_object
def put_object_in_one_step(self):
    with lock:
        return put_object(self)
S3Response.put_object = put_object_in_one_step
main(["-H", "127.0.0.1", "-p", "0"])
"""


@pytest.fixture(scope="session")
def s3():
    """An S3 server of this test run, moto or what LAKEBED_TEST_S3 names (moto, localstack); its address as `host:port`."""
    kind = os.environ.get("LAKEBED_TEST_S3", "moto")
    # What is printed when it serves stands before its address.
    command, sign = {"moto": ([sys.executable, "-c", MOTO], "Running on http://"),
                     "localstack": ([ROOT / "localstack/run"], "export AWS_ENDPOINT_URL_S3=http://")}[kind]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, bufsize=0)
    drain = None
    try:
        line = ""
        while sign not in line:
            line = read_line(server, INSTALL_SECONDS if kind == "localstack" else READY_SECONDS)
        # What it prints later must not fill the pipe.
        address = line.split("http://")[1].strip()
        drain = subprocess.Popen(["cat"], stdin=server.stdout, stdout=subprocess.DEVNULL)
        yield address
    finally:
        # LocalStack is the child of its script, which ends it when it is asked to end.
        server.terminate() if kind == "localstack" else server.kill()
        server.wait()
    if drain:
        drain.wait()


class S3Server:
    """An S3 server of our own (`lakebed_sim::s3`), which can be told to misbehave. `endpoint` is its address as `host:port`."""

    def __init__(self, log, arguments=()):
        assert S3_SERVER.exists(), f"{S3_SERVER} is missing: cargo build --workspace --bins"
        with open(log, "ab") as errors:
            self.process = subprocess.Popen([S3_SERVER, *arguments], stdout=subprocess.PIPE, stderr=errors, bufsize=0)
        self.ready = json.loads(read_line(self.process, READY_SECONDS))
        self.endpoint = self.ready["endpoint"].removeprefix("http://")

    def control(self, method, path, body=None):
        """Asks the control endpoint. Returns the JSON of its answer."""
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.ready["control"] + path, data=data, method=method)
        with urllib.request.urlopen(request, timeout=READY_SECONDS) as answer:
            return json.load(answer)

    def conduct(self, **conduct):
        """Changes how it behaves; it is in force when this returns. Without arguments it behaves again."""
        self.control("PUT", "/conduct", conduct)

    def met(self):
        """How many requests each rule of its conduct has met."""
        return self.control("GET", "/conduct")["met"]

    def counts(self):
        """What was asked of it, by kind of request."""
        return self.control("GET", "/counts")["operations"]

    def kill(self):
        self.process.kill()
        self.process.wait()
        self.process.stdout.close()


@pytest.fixture
def s3_server(tmp_path):
    """An S3 server of the test's own, that can be told to misbehave."""
    server = S3Server(tmp_path / "s3-server.log")
    yield server
    server.kill()


class Bucket:
    """A place for a root: `url` for the broker, `environment` to reach it, `glob(pattern)` for readers of Parquet."""

    def __init__(self, url, environment, endpoint=None):
        self.url, self.environment, self.endpoint = url, environment, endpoint

    @classmethod
    def on_s3(cls, endpoint):
        """An empty root in a new bucket of the S3 server at `endpoint`."""
        import boto3

        name = f"test-{uuid.uuid4()}"
        boto3.client("s3", endpoint_url=f"http://{endpoint}", region_name="us-east-1", aws_access_key_id="test",
                     aws_secret_access_key="test").create_bucket(Bucket=name)
        environment = os.environ | {"AWS_ENDPOINT_URL_S3": f"http://{endpoint}", "AWS_REGION": "us-east-1",
                                    "AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test"}
        environment.pop("AWS_PROFILE", None)
        return cls(f"s3://{name}/root", environment, endpoint)

    def objects(self, download):
        """The objects of the root as files, by key; those of S3 are copied into the directory `download`."""
        if self.endpoint is None:
            root = Path(self.url.removeprefix("file://"))
            return {str(path.relative_to(root)): path for path in sorted(root.rglob("*")) if path.is_file()}
        import boto3

        bucket, prefix = self.url.removeprefix("s3://").split("/", 1)
        client = boto3.client("s3", endpoint_url=f"http://{self.endpoint}", region_name="us-east-1",
                              aws_access_key_id="test", aws_secret_access_key="test")
        files = {}
        for page in client.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix):
            for item in page.get("Contents", []):
                key = item["Key"].removeprefix(prefix).lstrip("/")
                path = Path(download) / key
                path.parent.mkdir(parents=True, exist_ok=True)
                client.download_file(bucket, item["Key"], str(path))
                files[key] = path
        return dict(sorted(files.items()))


@pytest.fixture(params=["directory", "s3"])
def bucket(request):
    """An empty root, once on a local directory and once on an S3 server."""
    if request.param == "s3":
        return Bucket.on_s3(request.getfixturevalue("s3"))
    return request.getfixturevalue("tmp_bucket")


@pytest.fixture
def tmp_bucket(tmp_path):
    """An empty root on a local directory."""
    return Bucket(f"file://{tmp_path}/root", dict(os.environ))


@pytest.fixture
def start_broker(tmp_path):
    """Starts brokers: `start_broker(bucket, memory_mib=…, arguments=[…])`; each is stopped and checked at the end."""
    assert BINARY.exists(), f"{BINARY} is missing: cargo build --release"
    brokers, numbers = [], itertools.count()

    def start(bucket, kind=Broker, **options):
        # Some tests start several at the same moment.
        log = tmp_path / f"broker-{next(numbers)}.log"
        brokers.append(kind(bucket.url, bucket.environment, log, **options))
        return brokers[-1]

    try:
        yield start
        for broker in brokers:
            broker.stop()
            broker.check_memory()
    finally:
        for broker in brokers:
            broker.kill()


@pytest.fixture
def broker(start_broker, bucket):
    """A broker on an empty root."""
    return start_broker(bucket)


@pytest.fixture(params=[Broker, RereadBroker], ids=["tail", "no-tail"])
def client_broker(request, start_broker, bucket):
    """A broker on an empty root for the suites of clients: once as it is, once read after a restart and without its tail."""
    return start_broker(bucket, kind=request.param)


def lines_of(name):
    """The records of a file of tests/data, as bytes without the line's end."""
    with gzip.open(ROOT / "tests/data" / name, "rb") as file:
        return file.read().splitlines()


@pytest.fixture(scope="session")
def earthquakes():
    return lines_of("earthquakes.jsonl.gz")


@pytest.fixture(scope="session")
def birdstrikes():
    return lines_of("birdstrikes.jsonl.gz")


@pytest.fixture(scope="session")
def flights():
    return lines_of("flights.jsonl.gz")


@pytest.fixture(scope="session")
def lakebed():
    """Runs the binary with arguments; returns the finished process with text output."""

    def run(*arguments, within=(), **options):
        options = {"capture_output": True, "text": True, "timeout": 60, "env": dict(os.environ), **options}
        return subprocess.run([*within, BINARY, *arguments], **options)

    return run
