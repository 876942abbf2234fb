"""The S3 server of our own before a client that is not ours: boto3 signs, checks and pages as the AWS tools do."""

import os

import boto3
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError, ConnectionClosedError

from conftest import S3Server


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


def test_large_objects_go_in_parts_there_and_back_and_elsewhere(connect, tmp_path):
    s3, body = connect(), os.urandom(50 << 20)
    (tmp_path / "there").write_bytes(body)
    s3.upload_file(str(tmp_path / "there"), "test", "large/one")
    s3.download_file("test", "large/one", str(tmp_path / "back"))
    assert (tmp_path / "back").read_bytes() == body
    s3.copy({"Bucket": "test", "Key": "large/one"}, "test", "large/öther +&")
    assert s3.get_object(Bucket="test", Key="large/öther +&")["Body"].read() == body
    assert s3.head_object(Bucket="test", Key="large/one")["ETag"].endswith('-1"'), "no client takes it for an MD5"


def test_objects_are_copied_with_what_is_said_of_them_or_without(connect):
    s3 = connect()
    etag = s3.put_object(Bucket="test", Key="a +é", Body=b"1", ContentType="text/plain", Metadata={"who": "me"})["ETag"]
    s3.copy_object(Bucket="test", Key="b", CopySource={"Bucket": "test", "Key": "a +é"}, CopySourceIfMatch=etag)
    copy = s3.get_object(Bucket="test", Key="b")
    assert (copy["Body"].read(), copy["ContentType"], copy["Metadata"]) == (b"1", "text/plain", {"who": "me"})
    s3.copy_object(Bucket="test", Key="b", CopySource="test/b", MetadataDirective="REPLACE", Metadata={"who": "you"})
    assert s3.head_object(Bucket="test", Key="b")["Metadata"] == {"who": "you"}
    assert refused(s3.copy_object, Key="c", CopySource="test/none") == ("NoSuchKey", 404)
    assert refused(s3.copy_object, Key="c", CopySource="test/b", CopySourceIfMatch=etag) == ("PreconditionFailed", 412)


def test_what_is_open_is_listed_until_it_is_given_up(connect):
    s3 = connect()
    ids = [s3.create_multipart_upload(Bucket="test", Key=key)["UploadId"] for key in ("b", "a", "b")]
    pages = list(s3.get_paginator("list_multipart_uploads").paginate(Bucket="test", PaginationConfig={"PageSize": 1}))
    assert [upload["UploadId"] for page in pages for upload in page["Uploads"]] == [ids[1], ids[0], ids[2]]
    for number in (1, 2, 3):
        s3.upload_part(Bucket="test", Key="b", UploadId=ids[0], PartNumber=number, Body=b"x" * number)
    pages = list(s3.get_paginator("list_parts").paginate(Bucket="test", Key="b", UploadId=ids[0], PaginationConfig={"PageSize": 2}))
    assert [[(part["PartNumber"], part["Size"]) for part in page["Parts"]] for page in pages] == [[(1, 1), (2, 2)], [(3, 3)]]
    for key, upload in zip("bab", ids, strict=True):
        s3.abort_multipart_upload(Bucket="test", Key=key, UploadId=upload)
    assert "Uploads" not in s3.list_multipart_uploads(Bucket="test")


def test_both_kinds_of_listings_say_the_same_and_buckets_have_a_date(connect):
    s3 = connect()
    for number in range(12):
        s3.put_object(Bucket="test", Key=f"{number % 3}/{number:02}", Body=b"")
    for arguments in ({}, {"Delimiter": "/"}, {"Prefix": "1/", "Delimiter": "/"}):
        listed = []
        for operation in ("list_objects", "list_objects_v2"):
            pages = s3.get_paginator(operation).paginate(Bucket="test", PaginationConfig={"PageSize": 2}, **arguments)
            listed.append([[item["Key"] for item in page.get("Contents", [])] + [group["Prefix"] for group in page.get("CommonPrefixes", [])]
                           for page in pages])
        assert listed[0] == listed[1] and len(sum(listed[0], [])) in (12, 3, 4)
    assert s3.list_buckets()["Buckets"][0]["CreationDate"] and "Status" not in s3.get_bucket_versioning(Bucket="test")


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


@pytest.fixture
def two_clients(tmp_path):
    """A server that knows two access keys."""
    server = S3Server(tmp_path / "s3-server.log", ["--access-key", "test", "--access-key", "other", "--profile", "express"])
    yield server
    server.kill()


def test_one_client_is_cut_off_while_the_other_goes_on(two_clients):
    def connect(access_key):
        config = Config(retries={"max_attempts": 0}, s3={"addressing_style": "path"})
        return boto3.client("s3", endpoint_url=two_clients.ready["endpoint"], region_name="us-east-1", config=config,
                            aws_access_key_id=access_key, aws_secret_access_key="test")

    assert two_clients.ready["access_keys"] == ["test", "other"]
    assert two_clients.control("GET", "/conduct")["conduct"]["profile"] == "express"
    here, there = connect("test"), connect("other")
    two_clients.conduct(rules=[{"fault": "cut_connection", "access_key": "other"}])
    with pytest.raises(ConnectionClosedError):
        there.put_object(Bucket="test", Key="a", Body=b"1")
    here.put_object(Bucket="test", Key="b", Body=b"2")
    two_clients.conduct(limits={"writes_per_second": 0})
    assert refused(there.put_object, Key="a", Body=b"1") == ("SlowDown", 503)
    assert there.list_objects_v2(Bucket="test")["KeyCount"] == 1


def test_a_put_that_was_given_up_comes_when_it_is_told(connect, s3_server):
    s3 = connect()
    s3_server.conduct(rules=[{"fault": "internal_error", "operation": "put", "applied_after_ms": 600_000}])
    assert refused(s3.put_object, Key="a", Body=b"late") == ("InternalError", 500)
    assert s3.list_objects_v2(Bucket="test")["KeyCount"] == 0
    waiting = s3_server.control("GET", "/late")["waiting"]
    assert waiting > 0 and s3_server.control("POST", "/late")["applied"] == waiting
    assert s3.get_object(Bucket="test", Key="a")["Body"].read() == b"late"
    assert s3_server.control("GET", "/late")["waiting"] == 0
