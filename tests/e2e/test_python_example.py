"""The Python example, as its README says: stubs from `proto/`, orders produced by stream, read as Arrow, gone on with by token."""

import os
import subprocess
import sys

import pytest
from conftest import ROOT

EXAMPLE = ROOT / "examples/python"


@pytest.fixture
def orders(tmp_path, start_broker, tmp_bucket):
    """Runs orders.py with arguments against a broker of its own; returns its lines."""
    stubs = tmp_path / "stubs"
    stubs.mkdir()
    protos = sorted(str(path) for path in (ROOT / "proto/lakebed/v1").glob("*.proto"))
    subprocess.run([sys.executable, "-m", "grpc_tools.protoc", "-I", ROOT / "proto", f"--python_out={stubs}",
                    f"--grpc_python_out={stubs}", *protos], check=True)
    broker = start_broker(tmp_bucket)

    def run(*arguments, code=0):
        command = [sys.executable, EXAMPLE / "orders.py", "--server", broker.http, *arguments]
        done = subprocess.run(command, env=os.environ | {"PYTHONPATH": str(stubs)}, capture_output=True, text=True, timeout=60)
        assert done.returncode == code, done.stderr
        return (done.stdout if code == 0 else done.stderr).splitlines()

    return run


def test_orders_are_produced_read_as_arrow_and_gone_on_with(orders, tmp_path):
    token = ["--token", tmp_path / "orders.token"]
    assert orders("produce", "orders", "--count", "1010") == ["1010 orders are durable"]
    assert orders("consume", "orders", *token) == [
        "alice: 253 orders", "bob: 253 orders", "carol: 252 orders", "dave: 252 orders", "1010 orders read"]
    assert orders("consume", "orders", *token) == ["0 orders read"], "nothing is read twice"
    assert orders("produce", "orders", "--count", "8") == ["8 orders are durable"]
    assert orders("consume", "orders", *token) == [
        "alice: 2 orders", "bob: 2 orders", "carol: 2 orders", "dave: 2 orders", "8 orders read"]
    other = ["--token", tmp_path / "other.token"]
    assert orders("consume", "orders", *other)[-1] == "1018 orders read", "without a token, from the beginning"
    orders("produce", "others", "--count", "8")
    assert orders("consume", "others", *other, code=1)[0].startswith("TOPIC_NOT_FOUND: the resume_token is of a topic with id ")
    assert orders("consume", "nobody", "--token", tmp_path / "new.token", code=1)[0].startswith("TOPIC_NOT_FOUND: ")
