//! Every metric there is: name, kind, help, labels, buckets. One table, and the only place that speaks to the recorder, so
//! that what dashboards, rules and `docs/metrics.md` name is what the program tells.
//!
//! Ages beside counts: ten messages that wait for an hour are worse than ten thousand that wait for a second. No label
//! holds an id, an owner or an address. Without a recorder (tests, tools) all of this costs nothing.

pub use metrics::{Counter, Gauge, Histogram};
use metrics::{Label, Unit};
use std::time::Duration;

/// From a memory access to a patient caller.
const SHORT: &[f64] =
    &[0.000_5, 0.001, 0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0];
/// From a quick order to one that is paid at the last minute.
const LONG: &[f64] =
    &[0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 15.0, 60.0, 300.0, 900.0, 1_800.0, 2_400.0, 3_600.0, 7_200.0, 86_400.0];
/// Things in a batch, up to its bound and what follows from it.
const COUNTS: &[f64] = &[1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0, 1_024.0, 4_096.0];

/// Labels whose values are known beforehand: their counters exist, at zero, before the first event, so that a rate sees it.
const KNOWN: &[(&str, &[&str])] = &[
    ("side", &["orchestrator", "participants"]),
    ("inbox", &["start", "progress", "commands"]),
    ("reason", &["fenced", "panicked", "other"]),
    ("change", &["assigned", "revoked"]),
    ("measured", &["done", "failed"]),
    ("heard", &["taken", "ignored", "refused"]),
    ("purpose", &["write", "read", "takeover", "control"]),
];

/// What a metric is.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Kind {
    /// Only rises.
    Counter,
    /// Rises and falls.
    Gauge,
    /// Counts by buckets, whose upper bounds these are.
    Histogram(&'static [f64]),
}

impl Kind {
    /// As Prometheus names it.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram(_) => "histogram",
        }
    }
}

/// One row of the table.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Row {
    /// As it is scraped.
    pub name: &'static str,
    /// Its kind.
    pub kind: Kind,
    /// One sentence.
    pub help: &'static str,
    /// Names of its labels.
    pub labels: &'static [&'static str],
    /// Whether only a process on PostgreSQL and Kafka has it.
    pub shared: bool,
}

impl Row {
    /// What is measured in.
    #[must_use]
    pub fn unit(&self) -> Unit {
        let name = self.name.trim_end_matches("_total");
        match () {
            () if name.ends_with("_seconds") => Unit::Seconds,
            () if name.ends_with("_bytes") => Unit::Bytes,
            () => Unit::Count,
        }
    }
}

macro_rules! kind {
    (counter) => {
        Kind::Counter
    };
    (gauge) => {
        Kind::Gauge
    };
    (histogram $buckets:ident) => {
        Kind::Histogram($buckets)
    };
}

macro_rules! table {
    ($($(#[doc = $help:literal])+ $metric:ident = $kind:ident $(of $buckets:ident)? $name:literal
       [$($label:ident),*] $($shared:ident)?;)*) => {
        /// A metric.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum Metric { $($(#[doc = $help])+ $metric,)* }

        impl Metric {
            /// All of them, in the order of the table.
            pub const ALL: &'static [Self] = &[$(Self::$metric,)*];

            /// Its row.
            #[must_use]
            pub const fn row(self) -> Row {
                match self {
                    $(Self::$metric => Row {
                        name: $name,
                        kind: kind!($kind $($buckets)?),
                        help: concat!($($help),+),
                        labels: &[$(stringify!($label)),*],
                        shared: matches!(concat!($(stringify!($shared))?).as_bytes(), b"shared"),
                    },)*
                }
            }
        }
    };
}

table! {
    // Keeping up.
    /// Partitions of the system; each side has one shard of each.
    Partitions = gauge "endstate_partitions" [];
    /// Age of the oldest record that a shard has read and not committed; 0 when it has nothing to do.
    ShardBehind = gauge "endstate_shard_behind_seconds" [side, shard];
    /// Shards of this process that are assigned.
    ShardsAssigned = gauge "endstate_shards_assigned" [];
    /// Shards that this process should have assigned.
    ShardsExpected = gauge "endstate_shards_expected" [];
    /// Records that wait in a partition: its end minus the shard's position.
    LagRecords = gauge "endstate_bus_lag_records" [topic, partition];
    /// Age of a batch's oldest record when the batch was taken.
    RecordAge = histogram of LONG "endstate_record_age_seconds" [inbox];
    /// Sagas that go on as soon as a command is answered.
    InMotion = gauge "endstate_sagas_in_motion" [shard];
    /// Sagas in motion of one shard above which no start is taken.
    InMotionMost = gauge "endstate_sagas_in_motion_limit" [];
    /// Committed messages that the broker has not acknowledged, as the store knows; on the embedded store, commit is delivery.
    Unpublished = gauge "endstate_outbox_unpublished_messages" [];
    /// Age of the oldest of them.
    UnpublishedAge = gauge "endstate_outbox_unpublished_oldest_seconds" [];
    /// Time until the broker has acknowledged a record of committed messages, from when it is handed over right behind its commit.
    PublishDelay = histogram of SHORT "endstate_outbox_publish_delay_seconds" [topic] shared;
    /// How long the timer that is due longest is overdue.
    TimersOverdue = gauge "endstate_timers_overdue_oldest_seconds" [];
    /// A change that lists lack, of a saga that this process decides, is at most so old.
    ViewLag = gauge "endstate_view_lag_seconds" [];
    /// Sagas that lists lack, or show as they were, because they cannot be drawn.
    Undrawn = gauge "endstate_view_undrawn" [];
    /// Age of the oldest of them.
    UndrawnAge = gauge "endstate_view_undrawn_oldest_seconds" [];

    // Sagas.
    /// Sagas that began.
    SagasStarted = counter "endstate_sagas_started_total" [definition];
    /// Sagas that ended.
    SagasEnded = counter "endstate_sagas_ended_total" [definition, outcome];
    /// Time from a saga's start to its end.
    SagaDuration = histogram of LONG "endstate_saga_duration_seconds" [definition, outcome];
    /// What became of a step's commands: `done`, `refused`; `asked` about or `sent_again` without an answer in time; `exhausted`
    /// or `abandoned` without one; `contradicted` by a later one; of its undo, `undone`, `undo_refused`, `undo_abandoned`.
    StepOutcomes = counter "endstate_step_outcomes_total" [definition, step, outcome];
    /// Time from a step's command, or its undo's, to the answer, of those that were neither asked about nor sent again.
    StepDuration = histogram of SHORT "endstate_step_duration_seconds" [definition, step];
    /// Sagas that parked: nobody tries any more, a person must look.
    SagasParked = counter "endstate_sagas_parked_total" [definition];
    /// Sagas that have not ended, as lists show them.
    SagasOpen = gauge "endstate_sagas_open" [definition, phase];
    /// Time since the oldest of them began.
    SagasOldest = gauge "endstate_sagas_oldest_open_seconds" [definition, phase];
    /// Time since the one that has not changed for longest did.
    SagasStill = gauge "endstate_sagas_oldest_unchanged_seconds" [definition, phase];
    /// Inputs whose saga nobody knows.
    Orphans = gauge "endstate_orphans" [];
    /// Age of the oldest of them.
    OrphansAge = gauge "endstate_orphans_oldest_seconds" [];
    /// Discrepancies that nobody has closed.
    Discrepancies = gauge "endstate_discrepancies_open" [];
    /// Age of the oldest of them.
    DiscrepanciesAge = gauge "endstate_discrepancies_oldest_open_seconds" [];
    /// Records that nobody could handle.
    DeadLettered = counter "endstate_dead_letters_total" [inbox];
    /// Dead letters that nobody has sent again.
    DeadLetters = gauge "endstate_dead_letters_waiting" [];
    /// Age of the oldest of them.
    DeadLettersAge = gauge "endstate_dead_letters_oldest_seconds" [];
    /// Alerts of which nobody was told yet.
    AlertsUntold = gauge "endstate_alerts_untold" [];
    /// Age of the oldest of them.
    AlertsUntoldAge = gauge "endstate_alerts_untold_oldest_seconds" [];
    /// Sagas at rest whose state breaks an invariant: a defect of the program.
    InvariantsBroken = counter "endstate_invariants_broken_total" [invariant];

    // Batches.
    /// Batches that were committed.
    Batches = counter "endstate_batches_total" [side];
    /// Records of a batch.
    BatchRecords = histogram of COUNTS "endstate_batch_records" [side];
    /// Rows of a batch, messages apart.
    BatchRows = histogram of COUNTS "endstate_batch_rows" [side];
    /// Messages that a batch sends.
    BatchMessages = histogram of COUNTS "endstate_batch_messages" [side];
    /// Time to decide a batch, reading included.
    BatchDecide = histogram of SHORT "endstate_batch_decide_seconds" [side];
    /// Time to commit a batch.
    BatchCommit = histogram of SHORT "endstate_batch_commit_seconds" [side];
    /// Batches decided again because a row had changed meanwhile.
    Conflicts = counter "endstate_batch_conflicts_total" [side];
    /// Batches that were halved to find the record that cannot be handled.
    Halvings = counter "endstate_batch_halvings_total" [side];
    /// Shards taken over.
    Assignments = counter "endstate_assignments_total" [side];
    /// Shards that forgot everything and are assigned again; fenced: somebody else owns them.
    Doubts = counter "endstate_doubts_total" [side, reason];

    // Broker.
    /// Records that were read and not yet taken by their shard.
    HandedOverRecords = gauge "endstate_bus_handed_over_records" [topic, partition] shared;
    /// Messages of a producer that are not acknowledged: `producer_ours` is for what shards read, `producer_others` for what
    /// others read, `producer_foreign` for topics of other teams.
    QueuedMessages = gauge "endstate_bus_queued_messages" [client] shared;
    /// Their bytes.
    QueuedBytes = gauge "endstate_bus_queued_bytes" [client] shared;
    /// Time of a request to a broker and back, of each producer and of the consumer.
    RoundTrip = gauge "endstate_bus_round_trip_seconds" [client, broker, quantile] shared;
    /// Requests that a client sent again.
    Retries = counter "endstate_bus_retries_total" [client, broker] shared;
    /// Partitions that this process owns.
    OwnedShards = gauge "endstate_bus_owned_shards" [side] shared;
    /// Changes of the group that gave this process partitions, or took some.
    Rebalances = counter "endstate_bus_rebalances_total" [side, change] shared;
    /// Assignments that were refused because the topic is not what the position says.
    LostPositions = counter "endstate_bus_lost_positions_total" [inbox] shared;
    /// Commands that did not reach a topic of another team; the log names the topic.
    LostCommands = counter "endstate_bus_lost_commands_total" [] shared;
    /// Messages that were spilled into the database because the broker did not answer.
    SpilledMessages = counter "endstate_bus_spilled_messages_total" [inbox] shared;
    /// Messages that were refused because too many wait in the database.
    SpillRefused = counter "endstate_bus_spill_refused_total" [] shared;
    /// Spilled messages that their shards have not read, as the store knows.
    SpilledWaiting = gauge "endstate_bus_spilled_waiting_messages" [inbox] shared;
    /// Age of the oldest of them.
    SpilledAge = gauge "endstate_bus_spilled_oldest_seconds" [inbox] shared;
    /// Events of other teams that were read: taken, of no use to anybody here, or put aside.
    ForeignEvents = counter "endstate_foreign_events_total" [heard] shared;

    // Database.
    /// How far this machine's clock is behind the database's; below zero, ahead.
    ClockBehind = gauge "endstate_clock_behind_seconds" [] shared;
    /// Sessions that are lent.
    Sessions = gauge "endstate_store_sessions_used" [purpose] shared;
    /// Sessions that there may be.
    SessionsMost = gauge "endstate_store_sessions_limit" [purpose] shared;
    /// Time until a session was lent.
    SessionWait = histogram of SHORT "endstate_store_session_wait_seconds" [purpose] shared;
    /// Sessions that were opened.
    SessionsOpened = counter "endstate_store_sessions_opened_total" [purpose] shared;
    /// Looks at the store for what is not counted as it happens: ages, and what waits.
    Measured = counter "endstate_store_looks_total" [measured];

    // Participants and calls.
    /// Commands that participants of this process answered.
    Answered = counter "endstate_commands_answered_total" [participant, action, verdict];
    /// Calls to outside parties that are not answered, as the store knows.
    CallsOpen = gauge "endstate_calls_open" [];
    /// Age of the oldest of them.
    CallsAge = gauge "endstate_calls_oldest_seconds" [];
    /// Calls that wait for their turn in this process.
    CallsWaiting = gauge "endstate_calls_waiting" [participant];
    /// Calls that this process makes now.
    CallsRunning = gauge "endstate_calls_running" [participant];
    /// Time of a call to an outside party.
    CallDuration = histogram of SHORT "endstate_call_duration_seconds" [participant, verdict];

    // Jobs.
    /// Runs of scheduled jobs.
    JobRuns = counter "endstate_job_runs_total" [task, outcome];
    /// Time of a run.
    JobDuration = histogram of LONG "endstate_job_duration_seconds" [task];
    /// Time since a job last did its work; of one that never has, since its first run began or somebody first looked.
    JobSinceDone = gauge "endstate_job_since_done_seconds" [task];

    // The API.
    /// Calls.
    HttpRequests = counter "endstate_http_requests_total" [route, method, code];
    /// Time of a call, waits for a saga's end included.
    HttpDuration = histogram of SHORT "endstate_http_request_duration_seconds" [route, method];
    /// Payment callbacks.
    Callbacks = counter "endstate_callbacks_total" [provider, result];

    // The process.
    /// 1, with the version of the program.
    BuildInfo = gauge "endstate_build_info" [version];
    /// 1 for each role of this process.
    Roles = gauge "endstate_role" [role];
    /// 1 while this process is asked to stop.
    Draining = gauge "endstate_draining" [];
    /// Processor time of this process.
    Cpu = counter "endstate_process_cpu_seconds_total" [];
    /// Memory of this process that is not swapped out.
    Memory = gauge "endstate_process_resident_bytes" [];
}

impl Metric {
    /// As it is scraped.
    #[must_use]
    pub const fn name(self) -> &'static str {
        self.row().name
    }

    /// A counter rises. `labels` are the values of the row's labels, in their order.
    pub fn add(self, amount: u64, labels: &[&str]) {
        self.counter(labels).increment(amount);
    }

    /// A gauge is set.
    pub fn set(self, value: f64, labels: &[&str]) {
        self.gauge(labels).set(value);
    }

    /// A histogram takes a value.
    pub fn record(self, value: f64, labels: &[&str]) {
        self.histogram(labels).record(value);
    }

    /// A histogram of seconds takes a time.
    pub fn time(self, time: Duration, labels: &[&str]) {
        self.record(time.as_secs_f64(), labels);
    }

    /// The counter, for those who count often.
    pub fn counter(self, labels: &[&str]) -> Counter {
        debug_assert_eq!(self.row().kind, Kind::Counter, "{self:?}");
        metrics::counter!(self.name(), self.labelled(labels))
    }

    /// The gauge, for those who set it often.
    pub fn gauge(self, labels: &[&str]) -> Gauge {
        debug_assert_eq!(self.row().kind, Kind::Gauge, "{self:?}");
        metrics::gauge!(self.name(), self.labelled(labels))
    }

    /// The histogram, for those who record often.
    pub fn histogram(self, labels: &[&str]) -> Histogram {
        debug_assert!(matches!(self.row().kind, Kind::Histogram(_)), "{self:?}");
        metrics::histogram!(self.name(), self.labelled(labels))
    }

    fn labelled(self, values: &[&str]) -> Vec<Label> {
        let names = self.row().labels;
        debug_assert_eq!(names.len(), values.len(), "{self:?}");
        names.iter().zip(values).map(|(name, value)| Label::new(*name, (*value).to_owned())).collect()
    }
}

/// Tells the recorder what each metric means, and begins those at zero whose labels are known beforehand. `shared`:
/// also those of PostgreSQL and Kafka.
pub fn begin(shared: bool) {
    for metric in Metric::ALL.iter().filter(|metric| shared || !metric.row().shared) {
        let row @ Row { name, help, .. } = metric.row();
        let (unit, help) = (row.unit(), help.trim());
        match row.kind {
            Kind::Counter => metrics::describe_counter!(name, unit, help),
            Kind::Gauge => metrics::describe_gauge!(name, unit, help),
            Kind::Histogram(_) => metrics::describe_histogram!(name, unit, help),
        }
        for labels in known(row.labels) {
            match row.kind {
                Kind::Counter => metric.add(0, &labels),
                Kind::Histogram(_) => drop(metric.histogram(&labels)),
                // Zero would be a statement about something nobody has looked at.
                Kind::Gauge => {}
            }
        }
    }
}

/// Every combination of the labels' values; none when one of them is not known beforehand.
fn known(labels: &[&str]) -> Vec<Vec<&'static str>> {
    let mut combinations = vec![Vec::new()];
    for label in labels {
        let values = KNOWN.iter().find(|(name, _)| name == label).map_or(&[][..], |(_, values)| *values);
        let with = |before: &Vec<&'static str>| {
            let before = before.clone();
            values.iter().map(move |value| before.iter().copied().chain([*value]).collect())
        };
        combinations = combinations.iter().flat_map(with).collect();
    }
    combinations
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn names_tell_kind_and_unit_and_are_ours_alone() {
        let names: BTreeSet<_> = Metric::ALL.iter().map(|metric| metric.name()).collect();
        assert_eq!(names.len(), Metric::ALL.len(), "two metrics have one name");
        for metric in Metric::ALL {
            let Row { name, kind, help, labels, .. } = metric.row();
            assert!(name.starts_with("endstate_"), "{name}");
            assert_eq!(name.ends_with("_total"), kind == Kind::Counter, "{name}");
            assert!(help.trim().ends_with('.') && !help.contains('\n'), "{name}: {help}");
            assert!(labels.iter().all(|label| !label.ends_with("id")), "{name}: no ids as labels");
            let scraping = labels.iter().find(|label| ["job", "instance"].contains(label));
            assert_eq!(scraping, None, "{name}: Prometheus adds labels of that name, and renames ours");
            if let Kind::Histogram(buckets) = kind {
                assert!(buckets.is_sorted() && buckets.len() > 8, "{name}");
            }
        }
    }

    #[test]
    fn what_is_known_beforehand_is_combined() {
        assert_eq!(known(&[]), [Vec::<&str>::new()]);
        assert_eq!(known(&["side", "reason"]).len(), 6);
        assert_eq!(known(&["side", "definition"]), Vec::<Vec<&str>>::new());
    }
}
