"""A gRPC client without generated code: services and messages come from the server's reflection, as grpcurl does it."""

import grpc
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message_factory import GetMessageClass
from google.rpc import error_details_pb2
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase
from grpc_status import rpc_status

PACKAGE = "lakebed.v1"
SECONDS_MAX = 60


class Server:
    """A connection to a broker. `call("ProduceService/Produce", topic="t", …)`; use as a context manager."""

    def __init__(self, broker):
        self.channel = grpc.insecure_channel(broker.http)
        self.reflection = ProtoReflectionDescriptorDatabase(self.channel)
        self.pool = DescriptorPool(self.reflection)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.channel.close()

    def message(self, name, /, **fields):
        """A message of our package."""
        return GetMessageClass(self.pool.FindMessageTypeByName(f"{PACKAGE}.{name}"))(**fields)

    def _method(self, path):
        service, method = path.split("/")
        return self.pool.FindServiceByName(f"{PACKAGE}.{service}").methods_by_name[method]

    def call(self, path, /, **fields):
        """A unary call. Fields are those of its request; the answer is a message, or raises Refused."""
        method = self._method(path)
        request = GetMessageClass(method.input_type)(**fields)
        unary = self.channel.unary_unary(f"/{PACKAGE}.{path}", request_serializer=type(request).SerializeToString,
                                         response_deserializer=GetMessageClass(method.output_type).FromString)
        try:
            return unary(request, timeout=SECONDS_MAX)
        except grpc.RpcError as error:
            raise Refused(error) from error

    def stream(self, path, requests):
        """A call with streams in both directions. Iterate over the answers; `cancel()` ends it."""
        method = self._method(path)
        opened = self.channel.stream_stream(f"/{PACKAGE}.{path}", request_serializer=lambda m: m.SerializeToString(),
                                            response_deserializer=GetMessageClass(method.output_type).FromString)
        return opened(requests, timeout=SECONDS_MAX)


class Refused(Exception):
    """A status: its `code`; of its google.rpc.ErrorInfo the `reason`, `domain` and `metadata`; the `fields` of its BadRequest; and
    whether it says when to `retry`."""

    def __init__(self, error):
        super().__init__(f"{error.code()}: {error.details()}")
        self.code, self.reason, self.domain, self.metadata = error.code(), None, None, {}
        self.fields, self.retry = [], False
        status = rpc_status.from_call(error)
        for detail in status.details if status else ():
            info = error_details_pb2.ErrorInfo()
            if detail.Unpack(info):
                self.reason, self.domain, self.metadata = info.reason, info.domain, dict(info.metadata)
            wrong = error_details_pb2.BadRequest()
            if detail.Unpack(wrong):
                self.fields = [violation.field for violation in wrong.field_violations]
            self.retry = self.retry or detail.Is(error_details_pb2.RetryInfo.DESCRIPTOR)
