"""The HTTP port below gRPC: gRPC-Web over HTTP/1.1, ids and traces of requests, and what is no call."""

import base64
import http.client
import struct

import grpc
import pytest
from google.rpc import error_details_pb2, status_pb2
from kafka_clients import SECONDS_MAX, create_topic, read
from reflected import PACKAGE, Refused, Server

TOPIC = "web"
TRACE = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


@pytest.fixture
def server(start_broker, tmp_bucket):
    """A connection to a broker with a topic; `server.broker` is the broker."""
    broker = start_broker(tmp_bucket)
    create_topic(broker, TOPIC)
    with Server(broker) as server:
        server.broker = broker
        yield server


def frames(body):
    """The frames of a gRPC-Web answer, as (flags, bytes)."""
    found = []
    while body:
        flags, size = struct.unpack(">BI", body[:5])
        found.append((flags, body[5:5 + size]))
        assert len(found[-1][1]) == size, "the last frame is cut"
        body = body[5 + size:]
    return found


def post(broker, path, body, content_type, method="POST", **headers):
    """One request of HTTP/1.1. Returns status, headers and body."""
    connection = http.client.HTTPConnection(broker.http, timeout=SECONDS_MAX)
    headers = {name.replace("_", "-"): value for name, value in headers.items()} | {"content-type": content_type}
    connection.request(method, f"/{PACKAGE}.{path}", body, headers)
    answer = connection.getresponse()
    try:
        return answer.status, dict(answer.getheaders()), answer.read()
    finally:
        connection.close()


def framed(message):
    return struct.pack(">BI", 0, len(message)) + message


def trailers(frame):
    return dict(line.split(":", 1) for line in frame.decode().strip().split("\r\n"))


@pytest.mark.parametrize("content_type", ["application/grpc-web+proto", "application/grpc-web-text"])
def test_a_record_is_produced_by_grpc_web_over_http_1(server, content_type):
    text = content_type.endswith("text")
    request = server.message("ProduceRequest", topic=TOPIC, partition=0, records={"records": [{"value": b"from a page"}]})
    body = framed(request.SerializeToString())
    status, headers, answer = post(server.broker, "ProduceService/Produce", base64.b64encode(body) if text else body,
                                   content_type, accept=content_type)
    assert status == 200 and headers["content-type"].startswith(content_type), headers
    # Each part of the text is padded by itself.
    answer = b"".join(base64.b64decode(part + b"=" * (-len(part) % 4)) for part in answer.replace(b"=", b" ").split()) if text else answer
    (flags, message), (last, end) = frames(answer)
    assert (flags, last) == (0, 0x80)
    produced = server.message("ProduceResponse")
    produced.ParseFromString(message)
    assert (produced.partition, produced.base_offset, produced.last_offset) == (0, 0, 0)
    assert trailers(end)["grpc-status"].strip() == "0"
    assert [m.value() for m in read(server.broker, TOPIC)] == [b"from a page"]


def test_a_refusal_reaches_a_client_of_grpc_web_with_its_reason(server):
    request = b"\x0a\x06nobody"
    status, headers, answer = post(server.broker, "AdminService/DescribeTopic", framed(request), "application/grpc-web")
    end = {name.lower(): value for name, value in headers.items()}
    for flags, frame in frames(answer):
        assert flags == 0x80
        end |= trailers(frame)
    assert (status, end["grpc-status"].strip()) == (200, "5")
    details = end["grpc-status-details-bin"].strip()
    told = status_pb2.Status.FromString(base64.b64decode(details + "=" * (-len(details) % 4)))
    info = error_details_pb2.ErrorInfo()
    assert told.details[0].Unpack(info) and info.reason == "TOPIC_NOT_FOUND"


def test_no_page_of_another_origin_may_call(server):
    asked = {"origin": "https://evil.example", "access-control-request-method": "POST", "access-control-request-headers": "content-type"}
    _, headers, _ = post(server.broker, "AdminService/ListTopics", b"", "text/plain", method="OPTIONS", **asked)
    assert not [name for name in headers if name.lower() == "access-control-allow-origin"], headers


def unary(server, path, message, *metadata):
    """A call with raw bytes. Returns what the broker said before its answer, and the answer or the error."""
    call = server.channel.unary_unary(f"/{PACKAGE}.{path}")
    try:
        answer, done = call.with_call(message, timeout=SECONDS_MAX, metadata=metadata)
        return dict(done.initial_metadata()), answer
    except grpc.RpcError as error:
        return dict(error.initial_metadata() or ()) | dict(error.trailing_metadata() or ()), error


def test_a_request_keeps_its_id_and_its_trace_and_gets_an_id_if_it_has_none(server):
    told, _ = unary(server, "AdminService/ListTopics", b"", ("x-request-id", "mine-1"), ("traceparent", TRACE))
    assert (told["x-request-id"], told["traceparent"]) == ("mine-1", TRACE)
    drawn = [unary(server, "AdminService/ListTopics", b"", ("x-request-id", "not an id"), ("traceparent", "x"))[0] for _ in range(2)]
    assert all(len(told["x-request-id"]) == 16 and "traceparent" not in told for told in drawn)
    assert drawn[0]["x-request-id"] != drawn[1]["x-request-id"]
    refused, _ = unary(server, "AdminService/DescribeTopic", b"\x0a\x06nobody", ("x-request-id", "mine-2"))
    assert refused["x-request-id"] == "mine-2"


@pytest.mark.parametrize("path, message, code, reason", [
    ("AdminService/Nothing", b"", "UNIMPLEMENTED", "UNSUPPORTED"),
    ("NoService/Nothing", b"", "UNIMPLEMENTED", "UNSUPPORTED"),
    # Field 1 is a text: neither a number, nor cut, nor something that is not UTF-8.
    ("AdminService/DescribeTopic", b"\x08\x01", "INVALID_ARGUMENT", "INVALID_REQUEST"),
    ("AdminService/DescribeTopic", b"\x0a\x7fx", "INVALID_ARGUMENT", "INVALID_REQUEST"),
    ("AdminService/DescribeTopic", b"\x0a\x01\xff", "INVALID_ARGUMENT", "INVALID_REQUEST"),
    ("ProduceService/Produce", b"\x0a\x03web\x1a\x02\x0a\x7f", "INVALID_ARGUMENT", "INVALID_REQUEST"),
    ("AdminService/DescribeTopic", bytes((1 << 20) + 1), "INVALID_ARGUMENT", "MESSAGE_TOO_LARGE"),
    ("ConsumeService/Fetch", bytes((4 << 20) + 1), "INVALID_ARGUMENT", "MESSAGE_TOO_LARGE"),
    ("ProduceService/Produce", bytes((64 << 20) + 1), "INVALID_ARGUMENT", "MESSAGE_TOO_LARGE"),
])
def test_what_is_no_call_is_refused_by_the_table(server, path, message, code, reason):
    with pytest.raises(grpc.RpcError) as error:
        server.channel.unary_unary(f"/{PACKAGE}.{path}")(message, timeout=SECONDS_MAX)
    refused = Refused(error.value)
    assert (refused.code.name, refused.reason, refused.domain) == (code, reason, "lakebed"), refused


def test_a_request_of_another_kind_is_told_what_is_taken_here(server):
    status, _, body = post(server.broker, "AdminService/ListTopics", b"{}", "application/json")
    assert (status, b"application/grpc" in body) == (415, True)
    status, _, _ = post(server.broker, "AdminService/ListTopics", None, "application/grpc", method="GET")
    assert status == 405
    status, headers, _ = post(server.broker, "AdminService/ListTopics", b'{"name": 1}', "application/grpc-web")
    assert (status, headers.get("grpc-status")) == (200, "3"), headers


def test_pages_of_the_origins_that_are_set_may_call_and_no_others(start_broker, tmp_bucket):
    page = "https://console.example:8443"
    broker = start_broker(tmp_bucket, arguments=["--cors-origins", f"{page}, https://other.example"])
    asked = {"access-control-request-method": "POST", "access-control-request-headers": "content-type,x-grpc-web"}
    for origin, allowed in [(page, page), ("https://evil.example", None)]:
        _, headers, _ = post(broker, "AdminService/ListTopics", b"", "text/plain", method="OPTIONS", origin=origin, **asked)
        assert headers.get("access-control-allow-origin") == allowed, headers
    status, headers, _ = post(broker, "AdminService/ListTopics", framed(b""), "application/grpc-web", origin=page)
    assert (status, headers["access-control-allow-origin"]) == (200, page)
    assert "grpc-status-details-bin" in headers["access-control-expose-headers"]


def test_a_client_that_goes_on_calling_sees_no_error_when_its_connections_come_of_age(start_broker, tmp_bucket):
    broker = start_broker(tmp_bucket, arguments=["--connection-age-max", "50ms", "--connection-age-grace", "10s"])
    create_topic(broker, TOPIC)
    calls = pages = 0
    with Server(broker) as server:
        request = server.message("ProduceRequest", topic=TOPIC, partition=0, records={"records": [{"value": b"x"}]})
        produce = server.channel.unary_unary(f"/{PACKAGE}.ProduceService/Produce", request_serializer=type(request).SerializeToString,
                                             response_deserializer=type(server.message("ProduceResponse")).FromString)
        # Each look at the page is a connection, too.
        while broker.metrics()["lakebed_http_connections_accepted_total"] < pages + 12:
            pages += 1
            for _ in range(10):
                assert produce(request, timeout=SECONDS_MAX).base_offset == calls, "every call was answered once"
                calls += 1
