//! What a person can do about a store that says no, or nothing: by the code of its answer, and by where the settings come from.
//!
//! Nothing is decided by this; it goes into messages. Secrets are never in it.

use std::error::Error;
use std::sync::Arc;

use object_store::client::{HttpError, HttpErrorKind};

use crate::address::Address;
use crate::cloud::status::{Answered, NoRole};
use crate::store::Store;

/// Where the settings of a cloud store come from, in words that follow "as" (credentials) and "at" (endpoint).
#[derive(Clone, Debug)]
pub(crate) struct Origins {
    pub(crate) credentials: String,
    pub(crate) region: String,
    pub(crate) endpoint: String,
    /// How others reach it, where its URL does not say all.
    pub(crate) address: Option<Address>,
}

impl Origins {
    /// All of them from some variables.
    pub(crate) fn of_variables(names: &str) -> Self {
        let all = || names.to_owned();
        Self { credentials: all(), region: all(), endpoint: all(), address: None }
    }
}

impl Store {
    /// What a person can do about an operation on this store that failed with `error`, if that is known.
    pub fn remedy(&self, error: &(dyn Error + 'static)) -> Option<String> {
        let origins = self.origins()?;
        let Origins { credentials, region, endpoint, .. } = origins;
        let url = self.url();
        if let Some(answered) = in_chain::<Answered>(error) {
            let (status, code) = (answered.status, &*answered.code);
            return Some(match (status, code) {
                (_, "NoSuchBucket") => format!(
                    "create the bucket, or name another with --store; it was looked for at {endpoint}, in region {region}"
                ),
                (_, "InvalidAccessKeyId" | "InvalidClientTokenId") => format!(
                    "the store does not know {credentials}: give AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE, of the account that may write there; it was asked at {endpoint}"
                ),
                (_, "SignatureDoesNotMatch") => format!(
                    "the secret does not fit {credentials}: correct AWS_SECRET_ACCESS_KEY, or the profile"
                ),
                (_, "ExpiredToken" | "InvalidToken" | "TokenRefreshRequired") => {
                    format!("the session of {credentials} has ended: sign in again, or correct AWS_SESSION_TOKEN")
                }
                (_, "RequestTimeTooSkewed") => {
                    "the clocks of this machine and of the store are more than 15 minutes apart: set this machine's (`timedatectl` shows it), or the store's".to_owned()
                }
                (301 | 307 | 400, "AuthorizationHeaderMalformed" | "PermanentRedirect" | "TemporaryRedirect") => {
                    format!("the bucket is not in region {region}: set AWS_REGION")
                }
                (501, _) => no_conditions(url),
                (401 | 403, _) => format!(
                    "let {credentials} do there what `lakebed check storage {url}` prints as policy; without s3:ListBucket S3 says 403 of keys that do not exist, too"
                ),
                (429 | 503, _) => {
                    format!("the store asks for fewer requests, or is down for a while: try again later; it was asked at {endpoint}")
                }
                (500.., _) => format!("the store is in trouble: try again later; it was asked at {endpoint}"),
                _ => format!("it was asked at {endpoint}, as {credentials}"),
            });
        }
        if in_chain::<NoRole>(error).is_some() {
            return Some(match url.split(':').next() {
                Some("s3") => format!(
                    "give AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE, of an account that may write there; it was to be asked as {credentials}"
                ),
                _ => format!("give credentials in {credentials}, or run this where a role gives some"),
            });
        }
        let unreached = in_chain::<HttpError>(error).is_some_and(|http| http.kind() == HttpErrorKind::Connect);
        unreached.then(|| {
            format!(
                "nothing answers at {endpoint}: start it, or correct the address; it was to be asked as {credentials}"
            )
        })
    }
}

/// What to do about a store without conditional writes.
pub(crate) fn no_conditions(url: &str) -> String {
    format!(
        "use a store that creates objects only where none stands (`If-None-Match: *`); `lakebed check storage {url}` shows what this one does"
    )
}

fn in_chain<'a, T: Error + 'static>(error: &'a (dyn Error + 'static)) -> Option<&'a T> {
    let mut cause = Some(error);
    while let Some(error) = cause {
        if let Some(found) = error.downcast_ref::<T>() {
            return Some(found);
        }
        // A cause that is shared hides what it is: it passes on only what is below it.
        if let Some(shared) = error.downcast_ref::<Arc<dyn Error + Send + Sync>>()
            && let Some(found) = shared.downcast_ref::<T>()
        {
            return Some(found);
        }
        cause = error.source();
    }
    None
}
