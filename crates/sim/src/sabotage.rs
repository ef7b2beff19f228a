//! What a simulation breaks on purpose, one thing at a time, to show that the property that is
//! named beside it would see a cluster that does so. Normal runs break nothing.

/// One thing that is wrong all the time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sabotage {
    // workers
    /// Replicas stop with calls inside.
    StopWithoutDraining,
    /// Processes end by themselves, with calls inside.
    EndWithoutDraining,
    /// Replicas are reported as RUNNING while they start.
    RunBeforeReady,
    /// Replicas take more calls than they may.
    IgnoreLimits,
    /// One worker keeps what it was first assigned.
    IgnoreAssignment,
    // routers
    /// Some requests are answered twice.
    AnswerTwice,
    /// Some requests are forgotten.
    NeverAnswer,
    /// Some requests are answered without a replica.
    AnswerUnasked,
    /// Calls that were lost are repeated, whether that is safe or not.
    RepeatEverything,
    /// One router keeps its first tables.
    KeepOldTable,
    /// It says that it has the new ones.
    PretendNewTable,
    /// Canaries get nearly everything.
    SendCanaryMore,
    /// Errors are counted as good answers.
    HideErrors,
    /// Good answers are counted as errors.
    InventErrors,
    // the store
    /// Some writes are acknowledged and not done.
    LoseWrites,
    /// Now and then its last five writes are gone.
    ForgetWrites,
    /// Anybody may write, whatever it was made from, and heads do not look at their leases.
    IgnoreFences,
    /// The second half of some values is missing.
    TearValues,
    /// Of some transactions the first write is missing.
    SplitTransactions,
    /// The history is cut.
    CutHistory,
    // heads
    /// Some configs are refused and stored.
    StoreRefused,
    /// Old replicas are not assigned any more as soon as there is a new version.
    ForgetOldVersion,
    /// Autoscaling without delays, by loads that are not there every other time.
    Flap,
    /// Pods are deleted, whatever is in them.
    TakeAnyPod,
    /// No pods are made.
    MakeNoPods,
    /// Every few seconds it is another pod that shall go.
    MoveForEver,
    /// A timer without a pause.
    Spin,
}

impl Sabotage {
    /// All of them.
    pub const ALL: [Sabotage; 27] = [
        Sabotage::StopWithoutDraining,
        Sabotage::EndWithoutDraining,
        Sabotage::RunBeforeReady,
        Sabotage::IgnoreLimits,
        Sabotage::IgnoreAssignment,
        Sabotage::AnswerTwice,
        Sabotage::NeverAnswer,
        Sabotage::AnswerUnasked,
        Sabotage::RepeatEverything,
        Sabotage::KeepOldTable,
        Sabotage::PretendNewTable,
        Sabotage::SendCanaryMore,
        Sabotage::HideErrors,
        Sabotage::InventErrors,
        Sabotage::LoseWrites,
        Sabotage::ForgetWrites,
        Sabotage::IgnoreFences,
        Sabotage::TearValues,
        Sabotage::SplitTransactions,
        Sabotage::CutHistory,
        Sabotage::StoreRefused,
        Sabotage::ForgetOldVersion,
        Sabotage::Flap,
        Sabotage::TakeAnyPod,
        Sabotage::MakeNoPods,
        Sabotage::MoveForEver,
        Sabotage::Spin,
    ];

    /// The property that it violates.
    pub fn property(self) -> &'static str {
        match self {
            Sabotage::StopWithoutDraining | Sabotage::EndWithoutDraining => "drain_loses_nothing",
            Sabotage::RunBeforeReady => "tables_name_only_ready_replicas",
            Sabotage::IgnoreLimits => "the_limit_of_a_replica_is_strict",
            Sabotage::AnswerTwice | Sabotage::NeverAnswer | Sabotage::AnswerUnasked => {
                "exactly_one_answer"
            }
            Sabotage::RepeatEverything => "executed_at_most_once_unless_repeatable",
            Sabotage::MoveForEver => "replicas_do_not_move_for_ever",
            Sabotage::TakeAnyPod => "no_pod_is_taken_with_work",
            Sabotage::IgnoreAssignment | Sabotage::MakeNoPods => "it_comes_to_rest",
            Sabotage::KeepOldTable | Sabotage::PretendNewTable => {
                "nothing_fails_when_nothing_is_wrong"
            }
            Sabotage::SendCanaryMore => "a_canary_gets_its_share_at_most",
            Sabotage::HideErrors => "a_bad_canary_is_given_up",
            Sabotage::InventErrors => "a_good_canary_is_promoted",
            Sabotage::ForgetOldVersion => "the_old_version_keeps_its_replicas",
            Sabotage::LoseWrites | Sabotage::ForgetWrites => "an_accepted_config_is_durable",
            Sabotage::IgnoreFences => "only_the_leader_writes",
            Sabotage::TearValues => "what_is_stored_can_be_read",
            Sabotage::SplitTransactions => "the_current_revision_has_its_config",
            Sabotage::CutHistory => "the_history_goes_forward",
            Sabotage::StoreRefused => "a_refused_config_changes_nothing",
            Sabotage::Flap => "no_flapping_under_a_steady_load",
            Sabotage::Spin => "it_ends",
        }
    }
}
