//! The operations of S3 on the objects in memory.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use s3s::dto::*;
use s3s::{Body, S3, S3ErrorCode, S3Request, S3Response, S3Result, s3_error};

use super::conduct::Weakness;
use super::errors::{not_done, not_implemented, quota_exceeded, refused};
use super::objects::{Asked, Condition, Held, Missing, New, NotReceived, Object as Stored, Objects, now};
use super::uploads::{About, Begun};

/// Most keys on a page, as S3 has it.
const PAGE_KEYS_MAX: i32 = 1000;
/// How long a racing store looks away between the condition and the write.
const RACE_WINDOW: Duration = Duration::from_millis(5);

/// The operations, on the objects that it is given.
pub(crate) struct Protocol {
    objects: Arc<Objects>,
}

impl Protocol {
    pub(crate) fn new(objects: Arc<Objects>) -> Self {
        Self { objects }
    }

    async fn receive(&self, body: Option<StreamingBlob>, length: Option<i64>) -> S3Result<Held> {
        let Some(body) = body else { return Err(s3_error!(IncompleteBody)) };
        let expected = length.and_then(|length| usize::try_from(length).ok()).unwrap_or(0);
        self.objects.receive(body, expected).await.map_err(|error| match error {
            NotReceived::Full => quota_exceeded(),
            NotReceived::Ended(error) => s3_error!(IncompleteBody, "the body ended early: {error}"),
        })
    }

    /// What is looked at of a condition when the write is done.
    async fn weakened(&self, bucket: &str, key: &str, condition: Condition) -> S3Result<Condition> {
        match self.objects.weakness() {
            Weakness::IgnoresConditions => Ok(Condition::None),
            Weakness::RefusesConditions if condition != Condition::None => Err(not_implemented()),
            Weakness::RacesConditions => {
                self.objects.look(bucket, key, &condition).map_err(refused)?;
                tokio::time::sleep(RACE_WINDOW).await;
                Ok(Condition::None)
            }
            _ => Ok(condition),
        }
    }

    fn page(
        &self,
        bucket: &str,
        prefix: Option<&str>,
        delimiter: Option<&str>,
        after: Option<&str>,
        max_keys: Option<i32>,
    ) -> S3Result<Listed> {
        let max_keys = page_size(max_keys)?;
        let asked = Asked {
            prefix: prefix.unwrap_or_default(),
            delimiter: delimiter.unwrap_or_default(),
            after: after.unwrap_or_default(),
            max: max_keys as usize,
        };
        let page = self.objects.list(bucket, &asked).map_err(refused)?;
        let contents = page.objects.into_iter().map(|(key, size, etag, modified)| Object {
            key: Some(key),
            size: i64::try_from(size).ok(),
            e_tag: Some(ETag::Strong(etag)),
            last_modified: Some(Timestamp::from(modified)),
            ..Object::default()
        });
        let prefixes = page.prefixes.into_iter().map(|prefix| CommonPrefix { prefix: Some(prefix) });
        Ok(Listed {
            contents: contents.collect(),
            prefixes: prefixes.collect(),
            // S3 lists nothing and promises no more when it is asked for nothing.
            next: page.next.filter(|_| max_keys > 0),
            max_keys,
        })
    }

    /// What is to be copied.
    fn source(
        &self,
        source: &CopySource,
        if_match: Option<&ETagCondition>,
        if_none_match: Option<&ETagCondition>,
    ) -> S3Result<Stored> {
        match source {
            CopySource::Bucket { bucket, key, .. } => match self.find(bucket, key, if_match, if_none_match) {
                Err(error) if *error.code() == S3ErrorCode::NotModified => Err(refused(Missing::Condition)),
                found => found,
            },
            _ => Err(not_implemented()),
        }
    }

    /// A body of its own with the same bytes.
    fn copied(&self, bytes: Bytes) -> S3Result<Held> {
        let mut body = self.objects.room().ok_or_else(quota_exceeded)?;
        body.grow(bytes.len()).ok_or_else(quota_exceeded)?;
        body.bytes = bytes;
        Ok(body)
    }

    fn find(
        &self,
        bucket: &str,
        key: &str,
        if_match: Option<&ETagCondition>,
        if_none_match: Option<&ETagCondition>,
    ) -> S3Result<Stored> {
        let object = self.objects.get(bucket, key).map_err(refused)?;
        let is = |condition: &ETagCondition| match condition {
            ETagCondition::Any => true,
            ETagCondition::ETag(etag) => etag.value() == object.etag,
        };
        if if_match.is_some_and(|condition| !is(condition)) {
            return Err(s3_error!(PreconditionFailed, "At least one of the pre-conditions you specified did not hold"));
        }
        if if_none_match.is_some_and(is) {
            return Err(s3_error!(NotModified));
        }
        Ok(object)
    }
}

fn condition(if_match: Option<ETagCondition>, if_none_match: Option<ETagCondition>) -> S3Result<Condition> {
    match (if_match, if_none_match) {
        (None, None) => Ok(Condition::None),
        (None, Some(ETagCondition::Any)) => Ok(Condition::Absent),
        (Some(ETagCondition::Any), None) => Ok(Condition::Present),
        (Some(ETagCondition::ETag(etag)), None) => Ok(Condition::Etag(etag.into_value())),
        _ => Err(not_implemented()),
    }
}

/// One page of keys.
struct Listed {
    contents: Vec<Object>,
    prefixes: Vec<CommonPrefix>,
    next: Option<String>,
    max_keys: i32,
}

fn page_size(asked: Option<i32>) -> S3Result<i32> {
    match asked.unwrap_or(PAGE_KEYS_MAX) {
        ..0 => Err(s3_error!(InvalidArgument, "the size of a page must not be negative")),
        asked => Ok(asked.min(PAGE_KEYS_MAX)),
    }
}

/// The part of an object that was asked for, and how it is announced.
fn part(object: &Stored, range: Option<Range>, weakness: Weakness) -> S3Result<(Bytes, Option<String>)> {
    let bytes = &object.body.bytes;
    let size = bytes.len() as u64;
    let Some(range) = range else { return Ok((bytes.clone(), None)) };
    let range = range.check(size)?;
    if range.is_empty() {
        return Err(s3_error!(InvalidRange, "The requested range is not satisfiable"));
    }
    let announced = format!("bytes {}-{}/{size}", range.start, range.end - 1);
    let (start, end) = (range.start as usize, range.end as usize);
    let part = match weakness {
        Weakness::ShiftsRanges => bytes.slice(..end - start),
        _ => bytes.slice(start..end),
    };
    Ok((part, Some(announced)))
}

fn told(begun: Begun) -> MultipartUpload {
    MultipartUpload {
        key: Some(begun.key),
        upload_id: Some(begun.id),
        initiated: Some(Timestamp::from(begun.when)),
        ..MultipartUpload::default()
    }
}

#[async_trait::async_trait]
impl S3 for Protocol {
    async fn put_object(&self, request: S3Request<PutObjectInput>) -> S3Result<S3Response<PutObjectOutput>> {
        let input = request.input;
        let condition = condition(input.if_match, input.if_none_match)?;
        let body = self.receive(input.body, input.content_length).await?;
        let new = New { body, content_type: input.content_type, metadata: input.metadata };
        let condition = self.weakened(&input.bucket, &input.key, condition).await?;
        let etag = self.objects.put(&input.bucket, &input.key, new, &condition).map_err(refused)?;
        Ok(S3Response::new(PutObjectOutput { e_tag: Some(ETag::Strong(etag)), ..PutObjectOutput::default() }))
    }

    async fn copy_object(&self, request: S3Request<CopyObjectInput>) -> S3Result<S3Response<CopyObjectOutput>> {
        if ["if-match", "if-none-match"].iter().any(|name| request.headers.contains_key(*name)) {
            return Err(not_implemented());
        }
        let input = request.input;
        let (if_match, if_none_match) = (input.copy_source_if_match, input.copy_source_if_none_match);
        let source = self.source(&input.copy_source, if_match.as_ref(), if_none_match.as_ref())?;
        let replaces = input.metadata_directive.is_some_and(|told| told.as_str() == MetadataDirective::REPLACE);
        let (content_type, metadata) = match replaces {
            true => (input.content_type, input.metadata),
            false => (source.content_type, source.metadata),
        };
        let new = New { body: self.copied(source.body.bytes.clone())?, content_type, metadata };
        let etag = self.objects.put(&input.bucket, &input.key, new, &Condition::None).map_err(refused)?;
        let result = CopyObjectResult {
            e_tag: Some(ETag::Strong(etag)),
            last_modified: Some(Timestamp::from(now())),
            ..CopyObjectResult::default()
        };
        Ok(S3Response::new(CopyObjectOutput { copy_object_result: Some(result), ..CopyObjectOutput::default() }))
    }

    async fn create_multipart_upload(
        &self,
        request: S3Request<CreateMultipartUploadInput>,
    ) -> S3Result<S3Response<CreateMultipartUploadOutput>> {
        let input = request.input;
        let about = About { content_type: input.content_type, metadata: input.metadata };
        let id = self.objects.begin(&input.bucket, &input.key, about).map_err(not_done)?;
        let output = CreateMultipartUploadOutput {
            bucket: Some(input.bucket),
            key: Some(input.key),
            upload_id: Some(id),
            ..CreateMultipartUploadOutput::default()
        };
        Ok(S3Response::new(output))
    }

    async fn upload_part(&self, request: S3Request<UploadPartInput>) -> S3Result<S3Response<UploadPartOutput>> {
        let input = request.input;
        let body = self.receive(input.body, input.content_length).await?;
        let stored = self.objects.put_part(&input.bucket, &input.key, &input.upload_id, input.part_number, body);
        let etag = stored.map_err(not_done)?;
        Ok(S3Response::new(UploadPartOutput { e_tag: Some(ETag::Strong(etag)), ..UploadPartOutput::default() }))
    }

    async fn upload_part_copy(
        &self,
        request: S3Request<UploadPartCopyInput>,
    ) -> S3Result<S3Response<UploadPartCopyOutput>> {
        let input = request.input;
        let (if_match, if_none_match) = (input.copy_source_if_match, input.copy_source_if_none_match);
        let source = self.source(&input.copy_source, if_match.as_ref(), if_none_match.as_ref())?;
        let range = input.copy_source_range.map(|range| Range::parse(&range)).transpose();
        let range = range.map_err(|error| s3_error!(InvalidArgument, "{error}"))?;
        let (bytes, _) = part(&source, range, Weakness::None)?;
        let body = self.copied(bytes)?;
        let stored = self.objects.put_part(&input.bucket, &input.key, &input.upload_id, input.part_number, body);
        let result = CopyPartResult {
            e_tag: Some(ETag::Strong(stored.map_err(not_done)?)),
            last_modified: Some(Timestamp::from(now())),
            ..CopyPartResult::default()
        };
        Ok(S3Response::new(UploadPartCopyOutput { copy_part_result: Some(result), ..UploadPartCopyOutput::default() }))
    }

    async fn list_parts(&self, request: S3Request<ListPartsInput>) -> S3Result<S3Response<ListPartsOutput>> {
        let input = request.input;
        let max_parts = page_size(input.max_parts)?;
        let after = input.part_number_marker.unwrap_or(0);
        let upload = (input.bucket.as_str(), input.key.as_str(), input.upload_id.as_str());
        let (parts, more) = self.objects.parts(upload, after, max_parts as usize).map_err(not_done)?;
        let last = parts.last().map(|part| part.number);
        let parts = parts.into_iter().map(|part| Part {
            part_number: Some(part.number),
            size: i64::try_from(part.size).ok(),
            e_tag: Some(ETag::Strong(part.etag)),
            last_modified: Some(Timestamp::from(part.modified)),
            ..Part::default()
        });
        let output = ListPartsOutput {
            max_parts: Some(max_parts),
            is_truncated: Some(more),
            next_part_number_marker: last,
            part_number_marker: Some(after),
            parts: Some(parts.collect()),
            bucket: Some(input.bucket),
            key: Some(input.key),
            upload_id: Some(input.upload_id),
            ..ListPartsOutput::default()
        };
        Ok(S3Response::new(output))
    }

    async fn list_multipart_uploads(
        &self,
        request: S3Request<ListMultipartUploadsInput>,
    ) -> S3Result<S3Response<ListMultipartUploadsOutput>> {
        let input = request.input;
        if input.delimiter.is_some() {
            return Err(not_implemented());
        }
        let max_uploads = page_size(input.max_uploads)?;
        let prefix = input.prefix.as_deref().unwrap_or_default();
        let after = input.key_marker.as_deref().map(|key| (key, input.upload_id_marker.as_deref()));
        let begun = self.objects.begun(&input.bucket, prefix, after, max_uploads as usize).map_err(not_done)?;
        let (begun, more) = begun;
        let last = begun.last().filter(|_| more);
        let output = ListMultipartUploadsOutput {
            next_key_marker: last.map(|upload| upload.key.clone()),
            next_upload_id_marker: last.map(|upload| upload.id.clone()),
            max_uploads: Some(max_uploads),
            is_truncated: Some(more),
            uploads: Some(begun.into_iter().map(told).collect()),
            bucket: Some(input.bucket),
            prefix: input.prefix,
            key_marker: input.key_marker,
            upload_id_marker: input.upload_id_marker,
            ..ListMultipartUploadsOutput::default()
        };
        Ok(S3Response::new(output))
    }

    async fn complete_multipart_upload(
        &self,
        request: S3Request<CompleteMultipartUploadInput>,
    ) -> S3Result<S3Response<CompleteMultipartUploadOutput>> {
        let input = request.input;
        let condition = condition(input.if_match, input.if_none_match)?;
        let condition = self.weakened(&input.bucket, &input.key, condition).await?;
        let named = input.multipart_upload.and_then(|upload| upload.parts).unwrap_or_default().into_iter();
        let named = named.map(|part| Some((part.part_number?, part.e_tag?.into_value())));
        let Some(named) = named.collect::<Option<Vec<_>>>() else {
            return Err(s3_error!(MalformedXML, "a part has a number and an etag"));
        };
        let upload = (input.bucket.as_str(), input.key.as_str(), input.upload_id.as_str());
        let etag = self.objects.complete(upload, &named, &condition).map_err(not_done)?;
        let output = CompleteMultipartUploadOutput {
            bucket: Some(input.bucket),
            key: Some(input.key),
            e_tag: Some(ETag::Strong(etag)),
            ..CompleteMultipartUploadOutput::default()
        };
        Ok(S3Response::new(output))
    }

    async fn abort_multipart_upload(
        &self,
        request: S3Request<AbortMultipartUploadInput>,
    ) -> S3Result<S3Response<AbortMultipartUploadOutput>> {
        let input = request.input;
        self.objects.abort(&input.bucket, &input.key, &input.upload_id).map_err(not_done)?;
        Ok(S3Response::new(AbortMultipartUploadOutput::default()))
    }

    async fn get_object(&self, request: S3Request<GetObjectInput>) -> S3Result<S3Response<GetObjectOutput>> {
        let input = request.input;
        let object = self.find(&input.bucket, &input.key, input.if_match.as_ref(), input.if_none_match.as_ref())?;
        let (bytes, content_range) = part(&object, input.range, self.objects.weakness())?;
        let output = GetObjectOutput {
            content_length: i64::try_from(bytes.len()).ok(),
            body: Some(StreamingBlob::from(Body::from(bytes))),
            content_range,
            accept_ranges: Some("bytes".to_owned()),
            content_type: object.content_type,
            metadata: object.metadata,
            e_tag: Some(ETag::Strong(object.etag)),
            last_modified: Some(Timestamp::from(object.modified)),
            ..GetObjectOutput::default()
        };
        Ok(S3Response::new(output))
    }

    async fn head_object(&self, request: S3Request<HeadObjectInput>) -> S3Result<S3Response<HeadObjectOutput>> {
        let input = request.input;
        let object = self.find(&input.bucket, &input.key, input.if_match.as_ref(), input.if_none_match.as_ref())?;
        let output = HeadObjectOutput {
            content_length: i64::try_from(object.body.bytes.len()).ok(),
            accept_ranges: Some("bytes".to_owned()),
            content_type: object.content_type,
            metadata: object.metadata,
            e_tag: Some(ETag::Strong(object.etag)),
            last_modified: Some(Timestamp::from(object.modified)),
            ..HeadObjectOutput::default()
        };
        Ok(S3Response::new(output))
    }

    async fn list_objects_v2(
        &self,
        request: S3Request<ListObjectsV2Input>,
    ) -> S3Result<S3Response<ListObjectsV2Output>> {
        let input = request.input;
        // Only a key that a page ended with is ever given as a token.
        let after = input.continuation_token.as_deref().or(input.start_after.as_deref());
        let (prefix, delimiter) = (input.prefix.as_deref(), input.delimiter.as_deref());
        let page = self.page(&input.bucket, prefix, delimiter, after, input.max_keys)?;
        let output = ListObjectsV2Output {
            key_count: i32::try_from(page.contents.len() + page.prefixes.len()).ok(),
            max_keys: Some(page.max_keys),
            is_truncated: Some(page.next.is_some()),
            next_continuation_token: page.next,
            contents: Some(page.contents),
            common_prefixes: Some(page.prefixes),
            name: Some(input.bucket),
            prefix: input.prefix,
            delimiter: input.delimiter,
            continuation_token: input.continuation_token,
            start_after: input.start_after,
            ..ListObjectsV2Output::default()
        };
        Ok(S3Response::new(output))
    }

    async fn list_objects(&self, request: S3Request<ListObjectsInput>) -> S3Result<S3Response<ListObjectsOutput>> {
        let input = request.input;
        let (prefix, delimiter) = (input.prefix.as_deref(), input.delimiter.as_deref());
        let page = self.page(&input.bucket, prefix, delimiter, input.marker.as_deref(), input.max_keys)?;
        let output = ListObjectsOutput {
            max_keys: Some(page.max_keys),
            is_truncated: Some(page.next.is_some()),
            next_marker: page.next,
            contents: Some(page.contents),
            common_prefixes: Some(page.prefixes),
            name: Some(input.bucket),
            prefix: input.prefix,
            delimiter: input.delimiter,
            marker: input.marker,
            ..ListObjectsOutput::default()
        };
        Ok(S3Response::new(output))
    }

    async fn delete_object(&self, request: S3Request<DeleteObjectInput>) -> S3Result<S3Response<DeleteObjectOutput>> {
        self.objects.delete(&request.input.bucket, &request.input.key).map_err(refused)?;
        Ok(S3Response::new(DeleteObjectOutput::default()))
    }

    async fn delete_objects(
        &self,
        request: S3Request<DeleteObjectsInput>,
    ) -> S3Result<S3Response<DeleteObjectsOutput>> {
        let DeleteObjectsInput { bucket, delete, .. } = request.input;
        if delete.objects.len() > PAGE_KEYS_MAX as usize {
            return Err(s3_error!(MalformedXML, "at most {PAGE_KEYS_MAX} keys can be deleted at once"));
        }
        let mut deleted = Vec::new();
        for object in delete.objects {
            self.objects.delete(&bucket, &object.key).map_err(refused)?;
            deleted.push(DeletedObject { key: Some(object.key), ..DeletedObject::default() });
        }
        let quiet = delete.quiet.unwrap_or(false);
        let output = DeleteObjectsOutput { deleted: (!quiet).then_some(deleted), ..DeleteObjectsOutput::default() };
        Ok(S3Response::new(output))
    }

    async fn create_bucket(&self, request: S3Request<CreateBucketInput>) -> S3Result<S3Response<CreateBucketOutput>> {
        let bucket = request.input.bucket;
        if !self.objects.create_bucket(&bucket) {
            return Err(s3_error!(BucketAlreadyOwnedByYou, "you have it already"));
        }
        Ok(S3Response::new(CreateBucketOutput { location: Some(format!("/{bucket}")) }))
    }

    async fn delete_bucket(&self, request: S3Request<DeleteBucketInput>) -> S3Result<S3Response<DeleteBucketOutput>> {
        match self.objects.delete_bucket(&request.input.bucket) {
            None => Err(refused(Missing::Bucket)),
            Some(false) => Err(s3_error!(BucketNotEmpty, "The bucket you tried to delete is not empty")),
            Some(true) => Ok(S3Response::new(DeleteBucketOutput::default())),
        }
    }

    async fn head_bucket(&self, request: S3Request<HeadBucketInput>) -> S3Result<S3Response<HeadBucketOutput>> {
        match self.objects.has_bucket(&request.input.bucket) {
            true => Ok(S3Response::new(HeadBucketOutput::default())),
            false => Err(refused(Missing::Bucket)),
        }
    }

    async fn get_bucket_location(
        &self,
        request: S3Request<GetBucketLocationInput>,
    ) -> S3Result<S3Response<GetBucketLocationOutput>> {
        match self.objects.has_bucket(&request.input.bucket) {
            true => Ok(S3Response::new(GetBucketLocationOutput::default())),
            false => Err(refused(Missing::Bucket)),
        }
    }

    /// It has none, which clients ask before they delete.
    async fn get_bucket_versioning(
        &self,
        request: S3Request<GetBucketVersioningInput>,
    ) -> S3Result<S3Response<GetBucketVersioningOutput>> {
        match self.objects.has_bucket(&request.input.bucket) {
            true => Ok(S3Response::new(GetBucketVersioningOutput::default())),
            false => Err(refused(Missing::Bucket)),
        }
    }

    async fn list_buckets(&self, _: S3Request<ListBucketsInput>) -> S3Result<S3Response<ListBucketsOutput>> {
        let buckets = self.objects.buckets().into_iter();
        let told = |(name, created)| Bucket {
            name: Some(name),
            creation_date: Some(Timestamp::from(created)),
            ..Bucket::default()
        };
        let buckets = buckets.map(told).collect();
        Ok(S3Response::new(ListBucketsOutput { buckets: Some(buckets), ..ListBucketsOutput::default() }))
    }
}
