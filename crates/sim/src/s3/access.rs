//! Who may ask: one access key, by signatures of version 4.

use std::sync::Arc;

use s3s::auth::{S3Auth, SecretKey};
use s3s::config::{S3Config, StaticConfigProvider};
use s3s::service::{S3Service, S3ServiceBuilder};
use s3s::{S3, S3Result, s3_error};

use super::Options;

struct OneKey {
    access_key: String,
    secret_key: SecretKey,
}

#[async_trait::async_trait]
impl S3Auth for OneKey {
    async fn get_secret_key(&self, access_key: &str) -> S3Result<SecretKey> {
        match access_key == self.access_key {
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
    builder.set_auth(OneKey {
        access_key: options.access_key.clone(),
        secret_key: SecretKey::from(options.secret_key.clone()),
    });
    let mut config = S3Config::default();
    // The clock is checked before, by a clock that can be shifted.
    config.presigned_url_max_skew_time_secs = u32::MAX;
    builder.set_config(Arc::new(StaticConfigProvider::new(Arc::new(config))));
    builder.build()
}
