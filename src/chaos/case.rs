//! The cases: their names, what they do, and what they need.

/// What goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Case {
    /// Processes of every role are killed at random, and started again
    Kill,
    /// Z5: an owner is frozen beyond its session, others take over, and it wakes
    Freeze,
    /// Z6: processes join and leave, so that shards move to and fro
    Storm,
    /// Sessions of the database are terminated at random, busy ones first
    Sessions,
    /// Z5: the socket to the database is cut when a batch was sent and before its answer comes
    Cut,
    /// Z10: records come twice, out of order, cut in half, too large, of another environment
    Records,
    /// Z3: the groups' positions are moved to the beginning and to the end while nobody is in them
    Offsets,
    /// Z15: two versions of a definition in processes that know one each, and the active one changes
    Versions,
    /// Z17: another environment on the same servers, and processes that are set up wrong
    Strangers,
    /// The database is stopped, or ends at once, and is started again
    Database,
    /// The broker is stopped, or killed, and is started again
    Broker,
    /// Z14: an asynchronous standby that lacks the last commits is promoted
    Standby,
}

/// Two processes that do everything, and one in front of them.
const THREE: &[(&str, &str)] = &[
    ("front", "gateway,sweeper"),
    ("left", "gateway,orchestrator,participants"),
    ("right", "orchestrator,participants"),
];

/// One kind of work each, shared by two at most.
const FOUR: &[(&str, &str)] = &[
    ("front", "gateway,sweeper"),
    ("left", "gateway,orchestrator"),
    ("right", "orchestrator,participants"),
    ("ledger", "participants"),
];

impl Case {
    /// All of them, in the order in which they run.
    pub(crate) const ALL: [Self; 12] = [
        Self::Kill,
        Self::Freeze,
        Self::Storm,
        Self::Sessions,
        Self::Cut,
        Self::Records,
        Self::Offsets,
        Self::Versions,
        Self::Strangers,
        Self::Database,
        Self::Broker,
        Self::Standby,
    ];

    /// Its name on the command line.
    pub(crate) fn label(self) -> &'static str {
        match self {
            Self::Kill => "kill",
            Self::Freeze => "freeze",
            Self::Storm => "storm",
            Self::Sessions => "sessions",
            Self::Cut => "cut",
            Self::Records => "records",
            Self::Offsets => "offsets",
            Self::Versions => "versions",
            Self::Strangers => "strangers",
            Self::Database => "database",
            Self::Broker => "broker",
            Self::Standby => "standby",
        }
    }

    /// What is done, for people: what the help says of it.
    pub(crate) fn about(self) -> String {
        let value = clap::ValueEnum::to_possible_value(&self);
        value.and_then(|value| value.get_help().map(ToString::to_string)).unwrap_or_default()
    }

    /// Whether it stops a server, which only those may do whose server it is.
    pub(crate) fn hurts_servers(self) -> bool {
        matches!(self, Self::Database | Self::Broker | Self::Standby)
    }

    /// Whether processes reach the database through a proxy of the case.
    pub(crate) fn is_behind_proxy(self) -> bool {
        matches!(self, Self::Cut | Self::Standby)
    }

    /// Whether a person must look at what it parks.
    pub(crate) fn needs_operator(self) -> bool {
        matches!(self, Self::Records | Self::Standby)
    }

    /// The definition of the small sagas.
    pub(crate) fn definition(self) -> &'static str {
        if self == Self::Versions { super::cases::versions::NAME } else { "bench_saga" }
    }

    /// The processes it needs: name and roles.
    pub(crate) fn processes(self) -> &'static [(&'static str, &'static str)] {
        if self == Self::Kill { FOUR } else { THREE }
    }
}
