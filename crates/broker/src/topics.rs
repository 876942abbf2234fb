//! Topics: create, delete, find; the same for Kafka and gRPC clients.
//!
//! 1. What is said not to exist was looked for behind a barrier.
//! 2. What was created or deleted is durable before it is answered.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use lakebed_log::{AppendError, BarrierError, Log};
use lakebed_model::topic::NameError;
use lakebed_model::{Change, Changed, Draft, Refusal, State, TopicId, TopicName};
use rand::rngs::StdRng;
use rand::{RngCore, SeedableRng};
use uuid::Uuid;

use crate::reason::Reason;

mod records;
pub mod settings;

use settings::SettingError;

/// Longest wait for a change to become durable; then its fate is said to be unknown.
pub(crate) const CHANGE_TIME_MAX: Duration = Duration::from_secs(20);

/// The store did not say in time what became of a change.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("it is unknown whether it was done, and it may still be: the store has not answered within {} s", CHANGE_TIME_MAX.as_secs())]
pub struct Unanswered;

/// The door to topics. A handle; clones share it.
#[derive(Debug, Clone)]
pub struct Topics {
    log: Log,
    default_partitions: u32,
    partitions_max: usize,
    ids: Arc<Mutex<StdRng>>,
}

/// A topic to create.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewTopic {
    /// Its name, as the client wrote it.
    pub name: String,
    /// How many partitions; `None` takes the broker's default.
    pub partitions: Option<u32>,
    /// Settings by Kafka's names.
    pub config: BTreeMap<String, String>,
}

/// A topic as it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FoundTopic {
    /// Its id; nil for a topic that was only validated.
    pub id: TopicId,
    /// Its name.
    pub name: TopicName,
    /// Partitions `0..partitions` exist.
    pub partitions: u32,
    /// Its settings.
    pub config: Arc<BTreeMap<String, String>>,
}

/// Why a topic was not created.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CreateError {
    /// Not a topic name.
    #[error(transparent)]
    Name(#[from] NameError),
    /// A setting that can't be kept.
    #[error(transparent)]
    Setting(#[from] SettingError),
    /// Refused by the state, or its fate is what the error says.
    #[error(transparent)]
    Append(#[from] AppendError),
    /// It may be created.
    #[error(transparent)]
    Unanswered(#[from] Unanswered),
    /// The state could not be seen.
    #[error(transparent)]
    Barrier(#[from] BarrierError),
}

/// What to change of a topic; what is `None` stays as it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Alteration {
    /// Its name.
    pub name: String,
    /// Only if this is its id.
    pub id: Option<TopicId>,
    /// How many partitions there are then.
    pub partitions: Option<u32>,
    /// Its settings.
    pub config: ConfigAlteration,
}

/// What to change of a topic's settings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ConfigAlteration {
    /// These are all.
    Replace(BTreeMap<String, String>),
    /// These get a value, or their default again. May be empty.
    Some(BTreeMap<String, Option<String>>),
}

impl ConfigAlteration {
    /// All settings as they are then.
    fn after(&self, now: &BTreeMap<String, String>) -> BTreeMap<String, String> {
        match self {
            Self::Replace(config) => config.clone(),
            Self::Some(changes) => {
                let mut config = now.clone();
                for (name, value) in changes {
                    match value {
                        Some(value) => config.insert(name.clone(), value.clone()),
                        None => config.remove(name),
                    };
                }
                config
            }
        }
    }
}

/// How a topic is named in a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TopicReference {
    /// By name.
    Name(String),
    /// By id.
    Id(TopicId),
}

/// Why a topic was not found, not altered or not deleted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TopicError {
    /// No topic of that name.
    #[error("topic {name:?} does not exist")]
    NoSuchName {
        /// The name.
        name: String,
    },
    /// No topic with that id.
    #[error("there is no topic with id {id}")]
    NoSuchId {
        /// The id.
        id: TopicId,
    },
    /// The name is there, and it is another topic.
    #[error("topic {name:?} has id {found}, not {asked}: it has been created again")]
    OtherId {
        /// The name.
        name: String,
        /// Its id.
        found: TopicId,
        /// The id that it should have.
        asked: TopicId,
    },
    /// A setting that can't be kept.
    #[error(transparent)]
    Setting(#[from] SettingError),
    /// Its fate is what the error says.
    #[error(transparent)]
    Append(#[from] AppendError),
    /// It may be done.
    #[error(transparent)]
    Unanswered(#[from] Unanswered),
    /// The state could not be seen.
    #[error(transparent)]
    Barrier(#[from] BarrierError),
}

impl From<&CreateError> for Reason {
    fn from(error: &CreateError) -> Self {
        match error {
            CreateError::Name(_) => Self::InvalidTopicName,
            CreateError::Setting(_) => Self::InvalidConfig,
            CreateError::Append(error) => Self::from(error),
            CreateError::Unanswered(_) => Self::OutcomeUnknown,
            CreateError::Barrier(error) => Self::from(error),
        }
    }
}

impl From<&TopicError> for Reason {
    fn from(error: &TopicError) -> Self {
        match error {
            TopicError::NoSuchName { .. } | TopicError::OtherId { .. } => Self::TopicNotFound,
            TopicError::NoSuchId { .. } => Self::TopicIdNotFound,
            TopicError::Setting(_) => Self::InvalidConfig,
            TopicError::Append(error) => Self::from(error),
            TopicError::Unanswered(_) => Self::OutcomeUnknown,
            TopicError::Barrier(error) => Self::from(error),
        }
    }
}

impl Topics {
    /// Topics of `log`, with at most `partitions_max` partitions together. `seed` must differ between processes: topic ids are drawn
    /// from it.
    pub fn new(log: Log, default_partitions: u32, partitions_max: usize, seed: u64) -> Self {
        // SUBTLE: the log draws nonces and flush ids from the same seed; another stream, or ids would repeat between kinds.
        let ids = StdRng::seed_from_u64(seed ^ 0x746f_7069_6373_0000);
        Self { log, default_partitions, partitions_max, ids: Arc::new(Mutex::new(ids)) }
    }

    /// Creates a topic; with `validate_only`, answers as if it had.
    ///
    /// # Errors
    /// [`CreateError`]; that a topic exists was seen behind a barrier or by the sequencer itself.
    /// # Cancel
    /// The topic may still be created.
    pub async fn create(&self, new: NewTopic, validate_only: bool) -> Result<FoundTopic, CreateError> {
        let name = TopicName::new(&new.name)?;
        settings::check(&new.config)?;
        let id = self.draw_id();
        let partitions = new.partitions.unwrap_or(self.default_partitions);
        let change = Change::CreateTopic { id, name: name.clone(), partitions, config: new.config.clone() };
        let mut found = FoundTopic { id, name, partitions, config: Arc::new(new.config) };
        if validate_only {
            let state = self.log.barrier().await?;
            let changes = within(self.partitions_max, &state, vec![change]).map_err(AppendError::Refused)?;
            Draft::after(&state).change_all(changes).map_err(AppendError::Refused)?;
            found.id = TopicId::new(Uuid::nil());
        } else {
            let partitions_max = self.partitions_max;
            let created = self.log.alter(move |state| within(partitions_max, state, vec![change]));
            answered(created).await??;
        }
        Ok(found)
    }

    /// The topic of a name, created with the defaults if there is none.
    ///
    /// # Errors
    /// As [`Topics::create`], but that it exists is no error.
    pub async fn ensure(&self, name: &str) -> Result<FoundTopic, CreateError> {
        if let Some(found) = find_name(&self.log.state(), name) {
            return Ok(found);
        }
        let new = NewTopic { name: name.to_owned(), partitions: None, config: BTreeMap::new() };
        let error = match self.create(new, false).await {
            Err(error @ CreateError::Append(AppendError::Refused(Refusal::TopicExists { .. }))) => error,
            other => return other,
        };
        // Somebody was quicker; the refusal rests on durable commits, so the topic can be seen, unless it has been deleted again.
        find_name(&self.log.state(), name).ok_or(error)
    }

    /// Changes a topic, all that is asked for or nothing; answers with what it is then, or would be. Alterations at the same time
    /// build on one another. One that changes nothing commits nothing.
    ///
    /// # Errors
    /// [`TopicError`].
    /// # Cancel
    /// It may still happen.
    pub async fn alter(&self, alteration: Alteration, validate_only: bool) -> Result<FoundTopic, TopicError> {
        match &alteration.config {
            ConfigAlteration::Replace(config) => settings::check(config)?,
            ConfigAlteration::Some(changes) => {
                settings::check_names(changes.keys())?;
                let set = changes.iter().filter_map(|(name, value)| Some((name.clone(), value.clone()?)));
                settings::check(&set.collect())?;
            }
        }
        let reference = TopicReference::Name(alteration.name.clone());
        // Behind a barrier even if it is there: it may have been created again.
        let state = self.log.barrier().await?;
        let found = find(&state, &reference).ok_or_else(|| no_such(&reference))?;
        if let Some(asked) = alteration.id.filter(|asked| *asked != found.id) {
            return Err(TopicError::OtherId { name: alteration.name, found: found.id, asked });
        }
        // What is fixed can't have changed since, for the id is the same.
        settings::check_fixed(&found.config, &alteration.config.after(&found.config))?;
        let (id, partitions_max) = (found.id, self.partitions_max);
        let decide = move |state: &State| within(partitions_max, state, alteration.changes(id, state)?);
        let state = if validate_only {
            let mut draft = Draft::after(&state);
            let changes = decide(draft.state()).map_err(AppendError::Refused)?;
            draft.change_all(changes).map_err(AppendError::Refused)?;
            draft.state().clone()
        } else {
            match answered(self.log.alter(decide)).await? {
                Ok(_) => self.log.state(),
                Err(AppendError::Refused(Refusal::UnknownTopic { .. })) => return Err(no_such(&reference)),
                Err(error) => return Err(error.into()),
            }
        };
        // Gone again already: it was altered all the same.
        Ok(find_id(&state, id).unwrap_or(found))
    }

    /// Deletes a topic; answers with what it was.
    ///
    /// # Errors
    /// [`TopicError`].
    /// # Cancel
    /// The topic may still be deleted.
    pub async fn delete(&self, reference: &TopicReference) -> Result<FoundTopic, TopicError> {
        let found = self.find(reference).await?;
        match answered(self.log.change(Change::DeleteTopic { id: found.id })).await? {
            Ok(_) => Ok(found),
            Err(AppendError::Refused(Refusal::UnknownTopic { .. })) => Err(no_such(reference)),
            Err(error) => Err(error.into()),
        }
    }

    /// The topic that is meant; one that is missing is looked for behind a barrier.
    ///
    /// # Errors
    /// [`TopicError`].
    pub async fn find(&self, reference: &TopicReference) -> Result<FoundTopic, TopicError> {
        if let Some(found) = find(&self.log.state(), reference) {
            return Ok(found);
        }
        let state = self.log.barrier().await?;
        find(&state, reference).ok_or_else(|| no_such(reference))
    }

    /// All topics by name, with everything that was durable when this was called.
    ///
    /// # Errors
    /// [`BarrierError`] if the log closes.
    pub async fn list(&self) -> Result<Vec<FoundTopic>, BarrierError> {
        let state = self.log.barrier().await?;
        Ok(all(&state))
    }

    /// A fresh UUID of version 4. Kafka keeps the ids 0 and 1 for itself, and tools take one that begins with `-` in base64 for a
    /// flag; a version 4 is never the former, and the latter is drawn again.
    fn draw_id(&self) -> TopicId {
        let mut ids = self.ids.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            let mut bytes = [0; 16];
            ids.fill_bytes(&mut bytes);
            if bytes[0] >> 2 != 0b11_1110 {
                return TopicId::new(uuid::Builder::from_random_bytes(bytes).into_uuid());
            }
        }
    }
}

impl Alteration {
    /// What is to be committed: nothing of what is so already.
    fn changes(&self, id: TopicId, state: &State) -> Result<Vec<Change>, Refusal> {
        let topic = state.topic(id).ok_or(Refusal::UnknownTopic { id })?;
        let mut changes = Vec::new();
        let config = self.config.after(&topic.config);
        if config != *topic.config {
            changes.push(Change::AlterTopic { id, config });
        }
        if let Some(partitions) = self.partitions.filter(|partitions| *partitions != topic.partitions) {
            changes.push(Change::AddPartitions { id, partitions });
        }
        Ok(changes)
    }
}

/// Waits for what the log decides of a change for as long as a client would.
async fn answered(
    change: impl Future<Output = Result<Changed, AppendError>>,
) -> Result<Result<Changed, AppendError>, Unanswered> {
    tokio::time::timeout(CHANGE_TIME_MAX, change).await.map_err(|_| Unanswered)
}

/// The changes, unless they would make more than `max` partitions of all topics.
fn within(max: usize, state: &State, changes: Vec<Change>) -> Result<Vec<Change>, Refusal> {
    let existing = state.partition_count();
    let added = |change: &Change| match change {
        // One that exists is refused for that.
        Change::CreateTopic { name, partitions, .. } if state.topic_id(name.as_str()).is_none() => *partitions,
        Change::AddPartitions { id, partitions } => {
            partitions.saturating_sub(state.topic(*id).map_or(0, |topic| topic.partitions))
        }
        _ => 0,
    };
    let partitions = changes.iter().map(added).sum();
    if partitions > 0 && existing.saturating_add(partitions as usize) > max {
        return Err(Refusal::TooManyPartitions { partitions, existing, max });
    }
    Ok(changes)
}

/// The topic that is meant, in this state.
pub fn find(state: &State, reference: &TopicReference) -> Option<FoundTopic> {
    match reference {
        TopicReference::Name(name) => find_name(state, name),
        TopicReference::Id(id) => find_id(state, *id),
    }
}

/// All topics of a state by name.
pub fn all(state: &State) -> Vec<FoundTopic> {
    let mut topics: Vec<FoundTopic> = state.topics().filter_map(|(id, _)| find_id(state, id)).collect();
    topics.sort_by(|a, b| a.name.cmp(&b.name));
    topics
}

fn find_name(state: &State, name: &str) -> Option<FoundTopic> {
    find_id(state, state.topic_id(name)?)
}

fn find_id(state: &State, id: TopicId) -> Option<FoundTopic> {
    let topic = state.topic(id)?;
    Some(FoundTopic { id, name: topic.name.clone(), partitions: topic.partitions, config: Arc::clone(&topic.config) })
}

fn no_such(reference: &TopicReference) -> TopicError {
    match reference {
        TopicReference::Name(name) => TopicError::NoSuchName { name: name.clone() },
        TopicReference::Id(id) => TopicError::NoSuchId { id: *id },
    }
}
