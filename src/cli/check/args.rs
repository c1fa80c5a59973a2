//! What `endstate check` can be told: what to look at, bounds, and how to print it.

use super::names;
use clap::{Args, ValueEnum};
use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

/// How a monitor wants it; people and programs have `--output`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum CheckFormat {
    /// One line for Nagios, Icinga, Zabbix and their kin, with performance data.
    Nagios,
    /// For the node exporter's textfile collector.
    Prometheus,
}

/// Every bound is WARNING:CRITICAL: from that value on. A value of 0 is always well.
#[derive(Debug, Args)]
pub(crate) struct CheckArgs {
    /// Read the PostgreSQL of `store.url` instead of asking a server; what only a server knows is left out.
    #[arg(long)]
    pub(crate) store: bool,
    /// Configuration file, for --store.
    #[arg(long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// Only these checks, separated by commas.
    #[arg(long, value_delimiter = ',', value_name = "CHECK", value_parser = clap::builder::PossibleValuesParser::new(names()))]
    pub(crate) only: Vec<String>,
    /// How a monitor wants it.
    #[arg(long, value_enum)]
    pub(crate) format: Option<CheckFormat>,
    /// Parked sagas.
    #[arg(long, default_value = "1:50", value_name = "W:C")]
    pub(crate) parked: Bounds,
    /// Seconds since a saga that waits for no customer last changed.
    #[arg(long, default_value = "300:900", value_name = "W:C")]
    pub(crate) unchanged: Bounds,
    /// Seconds that a timer is overdue.
    #[arg(long, default_value = "30:120", value_name = "W:C")]
    pub(crate) overdue: Bounds,
    /// Seconds that a committed message has waited for the broker.
    #[arg(long, default_value = "10:60", value_name = "W:C")]
    pub(crate) unpublished: Bounds,
    /// Seconds that an input has waited in the database because the broker did not take it.
    #[arg(long, default_value = "10:60", value_name = "W:C")]
    pub(crate) spilled: Bounds,
    /// Records that wait in all partitions of the server asked.
    #[arg(long, default_value = "10000:100000", value_name = "W:C")]
    pub(crate) lag: Bounds,
    /// Age in seconds of the oldest record that a shard has read and not committed.
    #[arg(long, default_value = "10:60", value_name = "W:C")]
    pub(crate) behind: Bounds,
    /// Seconds that lists are behind.
    #[arg(long, default_value = "30:300", value_name = "W:C")]
    pub(crate) view: Bounds,
    /// Sagas that lists cannot show.
    #[arg(long, default_value = "1:1000", value_name = "W:C")]
    pub(crate) undrawn: Bounds,
    /// Open discrepancies.
    #[arg(long, default_value = ":1", value_name = "W:C")]
    pub(crate) discrepancies: Bounds,
    /// Dead letters that nobody has sent again.
    #[arg(long, default_value = "1:100", value_name = "W:C")]
    pub(crate) dead_letters: Bounds,
    /// Age in seconds of the oldest input without a saga.
    #[arg(long, default_value = "3600:86400", value_name = "W:C")]
    pub(crate) orphans: Bounds,
    /// Age in seconds of the oldest call that an outside party has not answered.
    #[arg(long, default_value = "300:3600", value_name = "W:C")]
    pub(crate) calls: Bounds,
    /// Age in seconds of the oldest alert of which nobody was told.
    #[arg(long, default_value = "120:600", value_name = "W:C")]
    pub(crate) alerts: Bounds,
}

/// Help of the check.
pub(crate) const HELP: &str = "\
Examples:
  endstate check                                               all, of the server of --server
  endstate check --parked :1 --only parked,discrepancies --format nagios
  endstate check --only ready                                  for containers; needs no token
  endstate check --format prometheus > /var/lib/node_exporter/endstate.prom
  ENDSTATE_STORE_URL=postgres://... endstate check --store     when no server answers

Bounds are WARNING:CRITICAL, from that value on; `:50` has no warning. Reading the numbers of a server needs a token with
the scope audit:read, and a server with the role `sweeper` for what is counted in the store.

Exit codes: 0 ok, 1 warning, 2 critical, 3 unknown: it could not be read, or was not asked rightly.";

/// From what on a value is a warning, and from what on critical: `1:50`. The first may be left out: `:50`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Bounds {
    /// None: never only a warning.
    pub(super) warning: Option<f64>,
    pub(super) critical: f64,
}

impl FromStr for Bounds {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("`{text}` is not WARNING:CRITICAL, as in 1:50 or :50");
        let (warning, critical) = text.split_once(':').ok_or_else(wrong)?;
        let number = |text: &str| text.parse::<f64>().ok().filter(|n| n.is_finite() && *n >= 0.0).ok_or_else(wrong);
        let warning = if warning.is_empty() { None } else { Some(number(warning)?) };
        let critical = number(critical)?;
        match warning {
            Some(warning) if warning > critical => Err(wrong()),
            Some(_) | None => Ok(Self { warning, critical }),
        }
    }
}

impl fmt::Display for Bounds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.warning {
            Some(warning) => write!(f, "{warning}:{}", self.critical),
            None => write!(f, ":{}", self.critical),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds_are_read_strictly() {
        for wrong in ["", "1", "2:1", "x:1", "1:", "-1:1", "1:nan"] {
            assert!(wrong.parse::<Bounds>().is_err(), "{wrong}");
        }
        assert_eq!(":50".parse::<Bounds>().unwrap().to_string(), ":50");
    }
}
