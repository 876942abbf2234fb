#!/bin/sh
# Makes the bucket, and the rule that ends uploads that nobody finishes. There is no rule that deletes objects: that is Lakebed's own business.
set -eu
awslocal s3api create-bucket --bucket lakebed
awslocal s3api put-bucket-lifecycle-configuration --bucket lakebed --lifecycle-configuration file:///etc/localstack/lifecycle.json
