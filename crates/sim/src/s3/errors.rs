//! What was not done, in the words of S3.

use s3s::{S3Error, s3_error};

use super::objects::Missing;
use super::uploads::Wrong;

pub(crate) fn not_implemented() -> S3Error {
    s3_error!(NotImplemented, "A header you provided implies functionality that is not implemented")
}

pub(crate) fn quota_exceeded() -> S3Error {
    let mut error =
        S3Error::with_message("QuotaExceeded".parse().expect("any text is a code"), "the server's memory is full");
    error.set_status_code(hyper::StatusCode::FORBIDDEN);
    error
}

pub(crate) fn refused(missing: Missing) -> S3Error {
    match missing {
        Missing::Bucket => s3_error!(NoSuchBucket, "The specified bucket does not exist"),
        Missing::Object => s3_error!(NoSuchKey, "The specified key does not exist."),
        Missing::Condition => {
            s3_error!(PreconditionFailed, "At least one of the pre-conditions you specified did not hold")
        }
    }
}

pub(crate) fn not_done(wrong: Wrong) -> S3Error {
    match wrong {
        Wrong::NoUpload => s3_error!(
            NoSuchUpload,
            "The specified upload does not exist. The upload ID may be invalid, or the upload may have been aborted or completed."
        ),
        Wrong::Number => s3_error!(InvalidArgument, "Part number must be an integer between 1 and 10000, inclusive"),
        Wrong::Part => s3_error!(
            InvalidPart,
            "One or more of the specified parts could not be found. The part may not have been uploaded, or the specified entity tag may not match the part's entity tag."
        ),
        Wrong::Order => {
            s3_error!(
                InvalidPartOrder,
                "The list of parts was not in ascending order. Parts must be ordered by part number."
            )
        }
        Wrong::Small => s3_error!(EntityTooSmall, "Your proposed upload is smaller than the minimum allowed size"),
        Wrong::Full => quota_exceeded(),
        Wrong::Missing(missing) => refused(missing),
    }
}
