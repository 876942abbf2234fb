"""Traces of a broker, received by a collector of the test's own: it speaks OTLP over gRPC, and keeps what comes."""

import threading
from concurrent.futures import ThreadPoolExecutor

import grpc
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2, trace_service_pb2_grpc

SECONDS_MAX = 60


class Collector(trace_service_pb2_grpc.TraceServiceServicer):
    """Receives spans on a free loopback port, or at an address as `host:port`. Use as a context manager."""

    def __init__(self, address="127.0.0.1:0"):
        self.address = address
        self.spans, self.resources, self.came = [], [], threading.Condition()

    def __enter__(self):
        self.server = grpc.server(ThreadPoolExecutor(max_workers=4))
        trace_service_pb2_grpc.add_TraceServiceServicer_to_server(self, self.server)
        self.url = f"http://127.0.0.1:{self.server.add_insecure_port(self.address)}"
        self.server.start()
        return self

    def __exit__(self, *_):
        self.server.stop(grace=None).wait()

    def Export(self, request, context):
        with self.came:
            for one in request.resource_spans:
                self.resources.append({attribute.key: attribute.value.string_value for attribute in one.resource.attributes})
                self.spans += [span for scope in one.scope_spans for span in scope.spans]
            self.came.notify_all()
        return trace_service_pb2.ExportTraceServiceResponse()

    def named(self, name):
        """The spans of a name that have come."""
        return [span for span in self.spans if span.name == name]


def attributes(span):
    """What stands on a span, as texts and numbers."""
    return {one.key: getattr(one.value, one.value.WhichOneof("value")) for one in span.attributes}
