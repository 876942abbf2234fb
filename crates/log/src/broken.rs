//! Switches that leave one rule out each, so that the simulation can show that it notices. Only builds with feature
//! `broken-rules` have them; in every other build they are constants, and the rules can't be left out.

/// Which rule is left out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Broken {
    /// None: all rules hold.
    #[default]
    Nothing,
    /// Takeovers are reclaimed like other commits.
    #[cfg(feature = "broken-rules")]
    ReclaimTakeovers,
    /// A new sequencer does not look for a checkpoint that covers its takeover.
    #[cfg(feature = "broken-rules")]
    NoListAfterTakingOver,
    /// A follower follows a takeover without looking for a checkpoint beyond it.
    #[cfg(feature = "broken-rules")]
    NoListBeforeFollowing,
    /// A fenced sequencer takes another's object for proof that its own never stood there.
    #[cfg(feature = "broken-rules")]
    NoListWhenFenced,
    /// A commit is acknowledged before those below it are durable.
    #[cfg(feature = "broken-rules")]
    AcknowledgeOutOfOrder,
    /// A checkpoint takes in what is in flight.
    #[cfg(feature = "broken-rules")]
    CheckpointInFlight,
    /// A conflict is taken for another's object without reading it back.
    #[cfg(feature = "broken-rules")]
    NoReadBack,
    /// A flush that is sent again is appended again.
    #[cfg(feature = "broken-rules")]
    FlushTwice,
    /// Commits whose rows are named are reclaimed.
    #[cfg(feature = "broken-rules")]
    ReclaimNamedRows,
    /// Producer ids are given before their allotment is durable.
    #[cfg(feature = "broken-rules")]
    GiveIdsInFlight,
    /// Producers are forgotten whenever they wrote last.
    #[cfg(feature = "broken-rules")]
    ForgetBusyProducers,
    /// Files that no version of a table shows any more are deleted while queries still run on them.
    #[cfg(feature = "broken-rules")]
    DeleteTableFilesAtOnce,
    /// Files of tables are deleted while a snapshot in sight shows them.
    #[cfg(feature = "broken-rules")]
    DeleteSeenTableFiles,
    /// What a deleted topic has left of its table is deleted at once.
    #[cfg(feature = "broken-rules")]
    DeleteGoneTablesAtOnce,
    /// Tables of deleted topics keep their hints.
    #[cfg(feature = "broken-rules")]
    LeaveHints,
    /// A table is made fresh as of what this process knows, without a barrier.
    #[cfg(feature = "broken-rules")]
    RefreshWithoutBarrier,
    /// Offsets are committed under whatever generation is in force.
    #[cfg(feature = "broken-rules")]
    CommitUnderOldGenerations,
    /// A sequencer tells those who follow it of commits that are in flight.
    #[cfg(feature = "broken-rules")]
    PushInFlight,
    /// A follower answers a barrier with what it knows.
    #[cfg(feature = "broken-rules")]
    BarrierFromMemory,
    /// A follower acknowledges flushes, as a sequencer would.
    #[cfg(feature = "broken-rules")]
    AcknowledgeAsFollower,
}

macro_rules! switches {
    ($($(#[$doc:meta])* $name:ident => $variant:ident;)*) => {
        impl Broken {
            $(
                $(#[$doc])*
                #[cfg(feature = "broken-rules")]
                pub fn $name(self) -> bool {
                    self == Self::$variant
                }

                $(#[$doc])*
                #[cfg(not(feature = "broken-rules"))]
                pub const fn $name(self) -> bool {
                    false
                }
            )*
        }
    };
}

switches! {
    /// Whether takeovers are reclaimed.
    reclaims_takeovers => ReclaimTakeovers;
    /// Whether LIST after taking over is left out.
    skips_list_after_taking_over => NoListAfterTakingOver;
    /// Whether LIST before following is left out.
    skips_list_before_following => NoListBeforeFollowing;
    /// Whether LIST when fenced is left out.
    skips_list_when_fenced => NoListWhenFenced;
    /// Whether answers overtake durability.
    acknowledges_out_of_order => AcknowledgeOutOfOrder;
    /// Whether checkpoints hold what is in flight.
    checkpoints_in_flight => CheckpointInFlight;
    /// Whether read back on doubt is left out.
    skips_read_back => NoReadBack;
    /// Whether a flush can be committed twice.
    commits_flushes_twice => FlushTwice;
    /// Whether named rows are reclaimed.
    reclaims_named_rows => ReclaimNamedRows;
    /// Whether producer ids are given before they are durably allotted.
    gives_ids_in_flight => GiveIdsInFlight;
    /// Whether expiry forgets those that are not idle, too.
    forgets_busy_producers => ForgetBusyProducers;
    /// Whether files of tables have no grace.
    deletes_table_files_at_once => DeleteTableFilesAtOnce;
    /// Whether files of tables go whatever snapshots show.
    deletes_seen_table_files => DeleteSeenTableFiles;
    /// Whether tables of deleted topics have no grace.
    deletes_gone_tables_at_once => DeleteGoneTablesAtOnce;
    /// Whether tables of deleted topics are left in sight.
    leaves_hints => LeaveHints;
    /// Whether tables are made fresh without a barrier.
    refreshes_without_barrier => RefreshWithoutBarrier;
    /// Whether the generation that a commit of offsets names is passed over.
    commits_under_old_generations => CommitUnderOldGenerations;
    /// Whether what is in flight is pushed.
    pushes_in_flight => PushInFlight;
    /// Whether followers read nothing for a barrier.
    answers_barriers_from_memory => BarrierFromMemory;
    /// Whether followers acknowledge what nobody commits.
    acknowledges_as_follower => AcknowledgeAsFollower;
}
