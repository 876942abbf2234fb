//! What a store must allow a broker: the least that does.

use serde_json::{Value, json};

/// What the store at `url` must allow; nothing for what is no bucket.
pub(crate) fn needed(url: &str) -> Option<Value> {
    let (scheme, rest) = url.split_once("://")?;
    let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
    let prefix = prefix.trim_matches('/');
    if bucket.is_empty() {
        return None;
    }
    let below = if prefix.is_empty() { String::new() } else { format!("{prefix}/") };
    match scheme {
        "s3" => Some(iam(bucket, prefix, &below)),
        "gs" => Some(json!({
            "role": "roles/storage.objectUser",
            "resource": format!("projects/_/buckets/{bucket}"),
            "condition": format!("resource.name.startsWith(\"projects/_/buckets/{bucket}/objects/{below}\")"),
        })),
        "az" => Some(json!({
            "role": "Storage Blob Data Contributor",
            "scope": format!("/blobServices/default/containers/{bucket}"),
        })),
        _ => None,
    }
}

/// An IAM policy document.
fn iam(bucket: &str, prefix: &str, below: &str) -> Value {
    let mut list = json!({
        "Sid": "ListTheRoot",
        "Effect": "Allow",
        "Action": ["s3:ListBucket"],
        "Resource": [format!("arn:aws:s3:::{bucket}")],
    });
    if !prefix.is_empty() {
        // SUBTLE: with a plain StringLike, S3 answers 403 in place of 404 for keys that do not exist, since a GET has no prefix; and a
        // broker that looks for the end of its log asks for a key that does not exist.
        list["Condition"] = json!({ "StringLikeIfExists": { "s3:prefix": [prefix, format!("{below}*")] } });
    }
    json!({
        "Version": "2012-10-17",
        "Statement": [
            {
                "Sid": "ReadAndWriteBelowTheRoot",
                "Effect": "Allow",
                "Action": [
                    "s3:GetObject",
                    "s3:PutObject",
                    "s3:DeleteObject",
                    "s3:AbortMultipartUpload",
                ],
                "Resource": [format!("arn:aws:s3:::{bucket}/{below}*")],
            },
            list,
            {
                "Sid": "LookAtTheBucket",
                "Effect": "Allow",
                "Action": ["s3:GetBucketLocation"],
                "Resource": [format!("arn:aws:s3:::{bucket}")],
            },
        ],
    })
}

/// What a bucket should do by itself, for a person; nothing where it does so anyway.
pub(crate) fn rule(url: &str) -> Option<&'static str> {
    let is_wanted = url.starts_with("s3://") || url.starts_with("gs://");
    is_wanted.then_some(
        "The bucket should delete what a broker that dies leaves of an upload: a lifecycle rule AbortIncompleteMultipartUpload after 1 day.",
    )
}

/// It as it is given to the store's own tools.
pub(crate) fn text(policy: &Value) -> String {
    format!("{policy:#}\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_policy_allows_the_root_and_no_more() {
        let policy = needed("s3://bucket/some/root/").unwrap();
        let [objects, list, bucket] = &policy["Statement"].as_array().unwrap()[..] else { panic!("{policy:#}") };
        assert_eq!(objects["Resource"], json!(["arn:aws:s3:::bucket/some/root/*"]));
        assert_eq!(list["Condition"]["StringLikeIfExists"]["s3:prefix"], json!(["some/root", "some/root/*"]));
        assert_eq!((&list["Action"], &list["Resource"]), (&json!(["s3:ListBucket"]), &bucket["Resource"]));
        assert!(!policy.to_string().contains("s3:*") && !policy.to_string().contains("\"*\""));
        let whole = needed("s3://bucket").unwrap();
        assert_eq!(whole["Statement"][0]["Resource"], json!(["arn:aws:s3:::bucket/*"]));
        assert!(whole["Statement"][1].get("Condition").is_none());
    }

    #[test]
    fn other_clouds_have_roles_and_directories_have_none() {
        let condition = needed("gs://bucket/root").unwrap()["condition"].to_string();
        assert!(condition.contains("buckets/bucket/objects/root/"), "{condition}");
        assert!(needed("az://container/root").unwrap()["scope"].to_string().ends_with("containers/container\""));
        for url in ["memory://", "file:///data", "/data", "s3://"] {
            assert_eq!(needed(url), None, "{url}");
        }
        assert!(rule("s3://bucket/root").unwrap().contains("AbortIncompleteMultipartUpload"));
        assert!(rule("gs://bucket").is_some() && rule("az://bucket").is_none() && rule("file:///data").is_none());
    }
}
