"""Requests that kafka-python has no schemas of: read from the jar of Kafka's own clients, and then like all others of `wire_kafka`."""

import json
import re
import sys
import tempfile
import zipfile
from pathlib import Path

from conftest import ROOT
from kafka.protocol.api_message import ApiMessage

JARS = ROOT / "tests/.tools/kafka"
NAMES = ["ConsumerGroupHeartbeatRequest", "ConsumerGroupHeartbeatResponse", "ConsumerGroupDescribeRequest", "ConsumerGroupDescribeResponse"]


def _schemas():
    """A package with the schemas, as kafka-python looks for them."""
    (jar,) = JARS.glob("kafka-clients-*.jar")
    directory = tempfile.TemporaryDirectory(prefix="kafka-schemas-")
    package = Path(directory.name) / "newer_schemas"
    package.mkdir()
    (package / "__init__.py").touch()
    with zipfile.ZipFile(jar) as archive:
        for name in NAMES:
            text = re.sub(r"(?m)^\s*//.*$", "", archive.read(f"common/message/{name}.json").decode())
            (package / f"{name}.json").write_text(json.dumps(json.loads(text)))
    sys.path.insert(0, directory.name)
    return directory


_directory = _schemas()


class ConsumerGroupHeartbeatRequest(ApiMessage, load_json="newer_schemas"): pass
class ConsumerGroupHeartbeatResponse(ApiMessage, load_json="newer_schemas"): pass
class ConsumerGroupDescribeRequest(ApiMessage, load_json="newer_schemas"): pass
class ConsumerGroupDescribeResponse(ApiMessage, load_json="newer_schemas"): pass
