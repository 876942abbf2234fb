"""The S3 server of our own before a client that is not ours: boto3 signs, checks and pages as the AWS tools do."""

import boto3
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError


@pytest.fixture
def connect(s3_server):
    def connect(**settings):
        settings = {"aws_access_key_id": "test", "aws_secret_access_key": "test", **settings}
        config = Config(retries={"max_attempts": 1, "mode": "standard"}, s3={"addressing_style": "path"})
        return boto3.client("s3", endpoint_url=s3_server.ready["endpoint"], region_name="us-east-1", config=config, **settings)

    return connect


def refused(call, **arguments):
    """The code and status with which a call is refused."""
    with pytest.raises(ClientError) as told:
        call(Bucket="test", **arguments)
    return told.value.response["Error"]["Code"], told.value.response["ResponseMetadata"]["HTTPStatusCode"]


def test_objects_are_stored_replaced_read_listed_and_deleted(connect):
    s3 = connect()
    for number in range(25):
        s3.put_object(Bucket="test", Key=f"a b/{number // 5}/{number:02}+=&.bin", Body=bytes([number]) * 100_000)
    pages = list(s3.get_paginator("list_objects_v2").paginate(Bucket="test", Prefix="a b/", PaginationConfig={"PageSize": 7}))
    assert [len(page["Contents"]) for page in pages] == [7, 7, 7, 4]
    keys = [item["Key"] for page in pages for item in page["Contents"]]
    assert keys == [f"a b/{number // 5}/{number:02}+=&.bin" for number in range(25)]
    groups = s3.list_objects_v2(Bucket="test", Prefix="a b/", Delimiter="/", StartAfter="a b/1/99")
    assert [group["Prefix"] for group in groups["CommonPrefixes"]] == ["a b/2/", "a b/3/", "a b/4/"]

    part = s3.get_object(Bucket="test", Key=keys[3], Range="bytes=99990-")
    assert part["Body"].read() == bytes([3]) * 10 and part["ContentRange"] == "bytes 99990-99999/100000"
    assert refused(s3.get_object, Key=keys[3], Range="bytes=100000-") == ("InvalidRange", 416)
    assert s3.head_object(Bucket="test", Key=keys[3])["ContentLength"] == 100_000

    assert refused(s3.put_object, Key=keys[0], Body=b"x", IfNoneMatch="*") == ("PreconditionFailed", 412)
    etag = s3.head_object(Bucket="test", Key=keys[0])["ETag"]
    s3.put_object(Bucket="test", Key=keys[0], Body=b"new", IfMatch=etag)
    assert refused(s3.put_object, Key=keys[0], Body=b"newer", IfMatch=etag) == ("PreconditionFailed", 412)
    assert s3.get_object(Bucket="test", Key=keys[0])["Body"].read() == b"new"

    s3.delete_object(Bucket="test", Key=keys[0])
    deleted = s3.delete_objects(Bucket="test", Delete={"Objects": [{"Key": key} for key in keys]})
    assert len(deleted["Deleted"]) == 25 and "Errors" not in deleted
    assert s3.list_objects_v2(Bucket="test")["KeyCount"] == 0
    assert refused(s3.get_object, Key=keys[0]) == ("NoSuchKey", 404)


def test_signatures_and_clocks_are_checked(connect, s3_server):
    assert refused(connect(aws_access_key_id="who").list_objects_v2) == ("InvalidAccessKeyId", 403)
    assert refused(connect(aws_secret_access_key="wrong").list_objects_v2) == ("SignatureDoesNotMatch", 403)
    s3_server.conduct(clock_shift_seconds=1000)
    assert refused(connect().list_objects_v2) == ("RequestTimeTooSkewed", 403)
    s3_server.conduct()
    assert connect().list_objects_v2(Bucket="test")["KeyCount"] == 0


def test_it_says_what_was_asked_and_what_it_costs(connect, s3_server):
    s3 = connect()
    s3_server.control("DELETE", "/counts")
    for number in range(10):
        s3.put_object(Bucket="test", Key=str(number), Body=b"12345678")
        assert s3.get_object(Bucket="test", Key=str(number))["Body"].read() == b"12345678"
    s3_server.conduct(rules=[{"fault": "slow_down", "operation": "list"}])
    assert refused(s3.list_objects_v2) == ("SlowDown", 503)
    counts = s3_server.counts()
    assert set(counts) == {"put", "get", "list"}
    assert (counts["put"]["requests"], counts["get"]["requests"], counts["get"]["bytes_out"]) == (10, 10, 80)
    assert counts["list"]["requests"] == counts["list"]["failed"] == s3_server.met()[0]
    assert counts["put"]["dollars"] == pytest.approx(10 * 0.005 / 1000) and counts["get"]["dollars"] == pytest.approx(10 * 0.0004 / 1000)
