//! Who may ask: the access keys that are known, by signatures of version 4.

use std::sync::Arc;

use hyper::Request;
use hyper::header::AUTHORIZATION;
use s3s::auth::{S3Auth, SecretKey};
use s3s::config::{S3Config, StaticConfigProvider};
use s3s::service::{S3Service, S3ServiceBuilder};
use s3s::{S3, S3Result, s3_error};

use super::Options;

struct Known {
    access_keys: Vec<String>,
    secret_key: SecretKey,
}

#[async_trait::async_trait]
impl S3Auth for Known {
    async fn get_secret_key(&self, access_key: &str) -> S3Result<SecretKey> {
        match self.access_keys.iter().any(|known| known == access_key) {
            true => Ok(self.secret_key.clone()),
            false => {
                Err(s3_error!(InvalidAccessKeyId, "The AWS Access Key Id you provided does not exist in our records."))
            }
        }
    }
}

/// `backend` behind the checks that S3 makes of every request.
pub(crate) fn guarded(backend: impl S3, options: &Options) -> S3Service {
    let mut builder = S3ServiceBuilder::new(backend);
    builder.set_auth(Known {
        access_keys: options.access_keys.clone(),
        secret_key: SecretKey::from(options.secret_key.clone()),
    });
    let mut config = S3Config::default();
    // The clock is checked before, by a clock that can be shifted.
    config.presigned_url_max_skew_time_secs = u32::MAX;
    builder.set_config(Arc::new(StaticConfigProvider::new(Arc::new(config))));
    builder.build()
}

/// The access key that a request names, in its header or, presigned, in its URL; empty if it names none. Whether it may is not looked at.
pub(crate) fn claimed<B>(request: &Request<B>) -> String {
    let header = request.headers().get(AUTHORIZATION).and_then(|value| value.to_str().ok());
    let credential = header.and_then(|text| text.split_once("Credential=")).map(|(_, credential)| credential);
    let presigned = request.uri().query().and_then(|query| query.split_once("X-Amz-Credential="));
    let credential = credential.or(presigned.map(|(_, credential)| credential)).unwrap_or_default();
    let end = credential.find(['/', '%', '&', ',']).unwrap_or(credential.len());
    credential[..end].to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_says_whose_it_is() {
        let named = |request: hyper::http::request::Builder| claimed(&request.body(()).unwrap());
        let header =
            "AWS4-HMAC-SHA256 Credential=one/20261123/us-east-1/s3/aws4_request, SignedHeaders=host, Signature=0";
        assert_eq!(named(Request::get("/b/k").header(AUTHORIZATION, header)), "one");
        let presigned =
            "/b/k?X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential=two%2F20261123%2Fus-east-1&X-Amz-Date=0";
        assert_eq!(named(Request::get(presigned)), "two");
        assert_eq!(named(Request::get("/b/k?X-Amz-Credential=three")), "three");
        assert_eq!(named(Request::get("/b/k")), "");
    }
}
