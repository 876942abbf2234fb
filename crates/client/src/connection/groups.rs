//! Calls about consumer groups that answer once.

use lakebed_wire::v1;
use tonic::transport::Channel;

use super::Client;
use crate::error::ClientError;
use crate::services::group_service_client::GroupServiceClient;

/// Most entries in one answer.
const PAGE_SIZE: i32 = 1000;

impl Client {
    /// All groups by name; of some kinds or in some states alone if any are named.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn list_groups(
        &self,
        kinds: &[v1::GroupKind],
        states: &[v1::GroupState],
    ) -> Result<Vec<v1::Group>, ClientError> {
        let mut groups = Vec::new();
        let mut page_token = String::new();
        loop {
            let request = v1::ListGroupsRequest {
                states: states.iter().map(|state| *state as i32).collect(),
                kinds: kinds.iter().map(|kind| *kind as i32).collect(),
                page_size: PAGE_SIZE,
                page_token,
            };
            let mut service = self.groups().await?;
            let page = self.answer(service.list_groups(self.request(request)).await)?;
            groups.extend(page.groups);
            page_token = page.next_page_token;
            if page_token.is_empty() {
                return Ok(groups);
            }
        }
    }

    /// A group with all its members and partitions.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn describe_group(&self, group: &str) -> Result<v1::DescribeGroupResponse, ClientError> {
        let mut whole = v1::DescribeGroupResponse::default();
        let mut page_token = String::new();
        loop {
            let request = v1::DescribeGroupRequest { group: group.to_owned(), page_size: PAGE_SIZE, page_token };
            let mut service = self.groups().await?;
            let page = self.answer(service.describe_group(self.request(request)).await)?;
            whole.group = page.group.or(whole.group);
            whole.assignor = page.assignor;
            whole.members.extend(page.members);
            whole.partitions.extend(page.partitions);
            page_token = page.next_page_token;
            if page_token.is_empty() {
                return Ok(whole);
            }
        }
    }

    /// What a group has committed, in some partitions or, if none are named, in all.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn fetch_offsets(
        &self,
        group: &str,
        partitions: Vec<v1::TopicPartitions>,
    ) -> Result<Vec<v1::CommittedOffset>, ClientError> {
        let mut offsets = Vec::new();
        let mut page_token = String::new();
        loop {
            let request = v1::FetchOffsetsRequest {
                group: group.to_owned(),
                partitions: partitions.clone(),
                page_size: PAGE_SIZE,
                page_token,
            };
            let mut service = self.groups().await?;
            let page = self.answer(service.fetch_offsets(self.request(request)).await)?;
            offsets.extend(page.offsets);
            page_token = page.next_page_token;
            if page_token.is_empty() {
                return Ok(offsets);
            }
        }
    }

    /// Sends a CommitOffsets request as it is; returns when the offsets are durable.
    ///
    /// # Errors
    /// [`ClientError`].
    /// # Cancel They may be committed.
    pub async fn commit_offsets(&self, request: v1::CommitOffsetsRequest) -> Result<(), ClientError> {
        let mut service = self.groups().await?;
        self.answer(service.commit_offsets(self.request(request)).await).map(drop)
    }

    /// Sends a ResetOffsets request as it is; answers what was moved, or would be.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn reset_offsets(&self, request: v1::ResetOffsetsRequest) -> Result<Vec<v1::ResetOffset>, ClientError> {
        let mut service = self.groups().await?;
        Ok(self.answer(service.reset_offsets(self.request(request)).await)?.offsets)
    }

    /// Sends a DeleteOffsets request as it is; answers what was forgotten, or would be.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn delete_offsets(
        &self,
        request: v1::DeleteOffsetsRequest,
    ) -> Result<Vec<v1::TopicPartitions>, ClientError> {
        let mut service = self.groups().await?;
        Ok(self.answer(service.delete_offsets(self.request(request)).await)?.partitions)
    }

    /// Deletes a group with what it has committed; with `validate_only`, says whether it could be done.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn delete_group(&self, group: &str, validate_only: bool) -> Result<(), ClientError> {
        let request = v1::DeleteGroupRequest { group: group.to_owned(), validate_only };
        let mut service = self.groups().await?;
        self.answer(service.delete_group(self.request(request)).await).map(drop)
    }

    async fn groups(&self) -> Result<GroupServiceClient<Channel>, ClientError> {
        Ok(GroupServiceClient::new(self.channel().await?))
    }
}
