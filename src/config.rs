//! Configuration: the embedded default file, then a file, then `ENDSTATE_*` variables, then flags.

use anyhow::{Context, bail};
use endstate_events::{Environment, ForeignTopic};
use endstate_http::Trust;
use endstate_http::outgoing::TrustError;
use endstate_outbox::sqlite::Made;
use endstate_participants::caller::Limits;
use endstate_participants::handler::Settings;
use figment::Figment;
use figment::providers::{Format, Serialized, Toml};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::num::NonZeroU16;
use std::path::{Path, PathBuf};

/// Every setting with its default and its comment; what `endstate config default` prints.
pub(crate) const DEFAULT: &str = include_str!("config.default.toml");

/// Variables that belong to the command line, not to the server's settings.
const COMMAND_LINE_VARIABLES: [&str; 2] = ["ENDSTATE_SERVER", "ENDSTATE_TOKEN_FILE"];

/// Begins the names of variables that tell tests where services are.
const TESTS: &str = "ENDSTATE_TEST_";

/// All settings. `config.default.toml` documents each.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Config {
    pub(crate) environment: Environment,
    pub(crate) data: PathBuf,
    pub(crate) store: Store,
    pub(crate) kafka: Kafka,
    pub(crate) redis: Redis,
    pub(crate) log: Log,
    pub(crate) http: Http,
    pub(crate) engine: Engine,
    pub(crate) payment: Payment,
    pub(crate) notify: Notify,
    pub(crate) participants: Participants,
    pub(crate) events: Events,
    pub(crate) sweep: Sweep,
    pub(crate) archive: Archive,
    pub(crate) retention: Retention,
    pub(crate) alert: Alert,
    pub(crate) metrics: Metrics,
    pub(crate) tls: Tls,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Store {
    pub(crate) url: Secret,
    pub(crate) connections: usize,
    pub(crate) writers: usize,
    pub(crate) debezium: bool,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Kafka {
    pub(crate) brokers: String,
    pub(crate) client_file: PathBuf,
    pub(crate) replication: u16,
    pub(crate) min_insync: u16,
    pub(crate) foreign_partitions: u16,
    pub(crate) retention_days: u16,
    pub(crate) session_ms: u64,
    pub(crate) spill_after_ms: u64,
    pub(crate) spill_most: u32,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Redis {
    pub(crate) url: Secret,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Log {
    pub(crate) filter: String,
    pub(crate) format: LogFormat,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum LogFormat {
    Text,
    Json,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Http {
    pub(crate) listen: SocketAddr,
    pub(crate) public_url: String,
    pub(crate) unready_s: u64,
    pub(crate) drain_s: u64,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Engine {
    pub(crate) mode: Mode,
    pub(crate) partitions: u16,
    pub(crate) in_motion: usize,
    pub(crate) definitions: PathBuf,
}

/// How sagas and built-in participants share transactions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Mode {
    /// Each side commits by itself.
    HopByHop,
    /// One task owns a partition on both sides, and one transaction takes its sagas as far as they come.
    Fused,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Payment {
    pub(crate) provider: String,
    pub(crate) url: String,
    pub(crate) kind: ProviderKind,
    pub(crate) secret: Secret,
    pub(crate) secret_file: PathBuf,
    pub(crate) callback_window_s: u64,
    pub(crate) timeout_ms: u64,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Retention {
    pub(crate) outbox_days: u32,
    pub(crate) schedule: String,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Metrics {
    pub(crate) look_every_s: u64,
}

/// What the provider at an address does with money.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum ProviderKind {
    Real,
    Simulated,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Notify {
    pub(crate) channel: String,
    pub(crate) file: PathBuf,
    pub(crate) webhook_url: String,
    pub(crate) sms_url: String,
    pub(crate) timeout_ms: u64,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Participants {
    pub(crate) hold_limit_s: u32,
    pub(crate) hold_check_s: u32,
    pub(crate) hold_release_percent: u8,
    pub(crate) calls_at_once: usize,
    pub(crate) calls_waiting: usize,
    pub(crate) addresses: String,
    pub(crate) topics: String,
}

impl Participants {
    /// Where HTTP participants live, by name.
    pub(crate) fn addresses(&self) -> anyhow::Result<BTreeMap<String, String>> {
        let wrong = |text: &str| format!("participants.addresses: `{text}` is not NAME=ADDRESS");
        self.addresses.split_whitespace().map(|text| pair(text).with_context(|| wrong(text))).collect()
    }

    /// Topics of participants over Kafka, by name.
    pub(crate) fn topics(&self) -> anyhow::Result<BTreeMap<String, ForeignTopic>> {
        let read = |text: &str| {
            let wrong = || format!("participants.topics: `{text}` is not NAME=TOPIC");
            let (name, topic) = pair(text).with_context(wrong)?;
            Ok((name, ForeignTopic::named(&topic).with_context(wrong)?))
        };
        self.topics.split_whitespace().map(read).collect()
    }

    /// For the participants' shards.
    pub(crate) fn settings(&self) -> Settings {
        Settings {
            hold_limit_ms: i64::from(self.hold_limit_s) * 1_000,
            check_every_ms: i64::from(self.hold_check_s.max(1)) * 1_000,
            release_share_percent: self.hold_release_percent,
            ..Settings::default()
        }
    }

    /// For the caller of outside parties.
    pub(crate) fn limits(&self) -> Limits {
        Limits { at_once: self.calls_at_once, waiting: self.calls_waiting }
    }
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Events {
    pub(crate) topics: String,
    pub(crate) from: From,
}

/// Where a topic is read first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum From {
    Beginning,
    End,
}

impl Events {
    /// Topics of other teams, and the participant that speaks in each, if one does.
    pub(crate) fn topics(&self) -> anyhow::Result<Vec<(ForeignTopic, Option<String>)>> {
        let read = |text: &str| {
            let (topic, teller) = text.split_once('=').map_or((text, None), |(topic, teller)| (topic, Some(teller)));
            let topic = ForeignTopic::named(topic).with_context(|| format!("events.topics: `{text}`"))?;
            anyhow::ensure!(teller != Some(""), "events.topics: `{text}` is not TOPIC=PARTICIPANT");
            Ok((topic, teller.map(str::to_owned)))
        };
        self.topics.split_whitespace().map(read).collect()
    }
}

/// `NAME=VALUE`.
fn pair(text: &str) -> Option<(String, String)> {
    let (name, value) = text.split_once('=')?;
    (!name.is_empty()).then(|| (name.to_owned(), value.to_owned()))
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Sweep {
    pub(crate) schedule: String,
    pub(crate) overdue_s: u64,
    pub(crate) limit: u32,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Archive {
    pub(crate) after_days: u32,
    pub(crate) schedule: String,
    pub(crate) limit: u32,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Alert {
    pub(crate) webhook_url: String,
    pub(crate) file: PathBuf,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Tls {
    pub(crate) ca_file: PathBuf,
}

impl Tls {
    /// Whom calls to others trust.
    pub(crate) fn trust(&self) -> Result<Trust, TrustError> {
        if self.ca_file.as_os_str().is_empty() { Ok(Trust::system()) } else { Trust::with(&self.ca_file) }
    }
}

/// A text that is never shown.
#[derive(Clone, Deserialize)]
#[serde(transparent)]
pub(crate) struct Secret(String);

impl Secret {
    /// The secret itself; only for the one who signs with it.
    pub(crate) fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_empty() { "(none)" } else { "(redacted)" })
    }
}

impl Serialize for Secret {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&format_args!("{self:?}"))
    }
}

impl Config {
    /// Reads defaults, `file` if given, and `variables` (pairs as of [`std::env::vars`]).
    pub(crate) fn load(
        file: Option<&Path>,
        variables: impl IntoIterator<Item = (String, String)>,
    ) -> anyhow::Result<Self> {
        let mut figment = Figment::from(Toml::string(DEFAULT));
        if let Some(file) = file {
            // Read here: figment takes a missing file for an empty one.
            let text = std::fs::read_to_string(file)
                .with_context(|| format!("cannot read the configuration file {}", file.display()))?;
            figment = figment.merge(Toml::string(&text));
        }
        let settings = settings();
        for (name, value) in variables.into_iter().filter(|(name, _)| name.starts_with("ENDSTATE_")) {
            if COMMAND_LINE_VARIABLES.contains(&name.as_str()) || name.starts_with(TESTS) {
                continue;
            }
            let Some(setting) = settings.iter().find(|setting| variable(setting) == name) else {
                bail!("{name} is no setting; `endstate config default` lists them all");
            };
            let value = typed(&figment, setting, value);
            figment = figment.merge(Serialized::default(setting, value));
        }
        let mut config: Self = figment.extract().map_err(|error| anyhow::anyhow!("configuration: {error}"))?;
        config.payment.read_secret_file()?;
        Ok(config)
    }

    /// What the store must have been made with.
    pub(crate) fn store(&self) -> Made {
        Made { environment: self.environment.clone(), partitions: NonZeroU16::new(self.engine.partitions) }
    }

    /// `path` inside the data folder, unless it is absolute.
    pub(crate) fn in_data(&self, path: &Path) -> PathBuf {
        self.data.join(path)
    }
}

impl Payment {
    fn read_secret_file(&mut self) -> anyhow::Result<()> {
        if self.secret.0.is_empty() && !self.secret_file.as_os_str().is_empty() {
            let text = std::fs::read_to_string(&self.secret_file)
                .with_context(|| format!("cannot read payment.secret_file {}", self.secret_file.display()))?;
            self.secret = Secret(text.lines().next().unwrap_or_default().trim().to_owned());
        }
        Ok(())
    }
}

/// The dotted names of all settings.
fn settings() -> Vec<String> {
    fn leaves(prefix: &str, table: &toml::Table, names: &mut Vec<String>) {
        for (name, value) in table {
            let path = if prefix.is_empty() { name.clone() } else { format!("{prefix}.{name}") };
            match value {
                toml::Value::Table(inner) => leaves(&path, inner, names),
                _ => names.push(path),
            }
        }
    }
    let table: toml::Table = DEFAULT.parse().expect("the embedded default is tested");
    let mut names = Vec::new();
    leaves("", &table, &mut names);
    names
}

/// `http.listen` -> `ENDSTATE_HTTP_LISTEN`.
fn variable(setting: &str) -> String {
    format!("ENDSTATE_{}", setting.replace('.', "_").to_ascii_uppercase())
}

/// A variable's text, as a number or as true or false where the default is one; text that is none stays text, and is refused
/// with it.
fn typed(figment: &Figment, setting: &str, value: String) -> figment::value::Value {
    let default = figment.find_value(setting);
    let wants_number = default.as_ref().is_ok_and(|default| default.to_num().is_some());
    let wants_truth = default.is_ok_and(|default| default.to_bool().is_some());
    match (value.parse::<i64>(), value.parse::<bool>()) {
        (Ok(number), _) if wants_number => number.into(),
        (_, Ok(truth)) if wants_truth => truth.into(),
        _ => value.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(toml: &str, variables: &[(&str, &str)]) -> anyhow::Result<Config> {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), toml).unwrap();
        Config::load(Some(file.path()), variables.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())))
    }

    #[test]
    fn the_default_file_is_whole_and_names_each_variable() {
        let config = Config::load(None, []).unwrap();
        assert_eq!(config.http.listen.port(), 7600);
        assert_eq!(config.participants.settings(), Settings::default(), "the file and the code have the same defaults");
        assert_eq!(config.participants.limits(), Limits::default());
        for setting in settings() {
            let name = setting.rsplit('.').next().unwrap();
            let documented = format!("# {}\n{name} = ", variable(&setting));
            assert!(DEFAULT.contains(&documented), "{setting} wants the comment line `# {}`", variable(&setting));
        }
    }

    #[test]
    fn the_environment_wins_over_the_file() {
        let config = load(
            "environment = \"file\"\n[engine]\nin_motion = 8",
            &[("ENDSTATE_ENVIRONMENT", "variable"), ("ENDSTATE_SERVER", "http://x"), ("ENDSTATE_SWEEP_LIMIT", "7")],
        )
        .unwrap();
        assert_eq!((config.environment.as_str(), config.engine.in_motion, config.sweep.limit), ("variable", 8, 7));
    }

    #[test]
    fn variables_of_the_compose_file_are_settings_or_none_of_ours() {
        let lines = include_str!("../.env").lines().filter_map(|line| line.split_once('='));
        let variables: Vec<_> = lines.map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
        assert!(variables.len() > 10);
        Config::load(None, variables).unwrap();
    }

    #[test]
    fn every_variable_reaches_its_setting() {
        let defaults = Figment::from(Toml::string(DEFAULT));
        for setting in settings() {
            let value = typed(&defaults, &setting, "12345".to_owned());
            let number = defaults.find_value(&setting).unwrap().to_num().is_some();
            assert_eq!(value.to_num().is_some(), number, "{setting}");
        }
    }

    #[test]
    fn what_is_unknown_or_wrong_is_refused_by_name() {
        for (toml, variable, expected) in [
            ("[http]\nlisten_on = \"x\"", ("ENDSTATE_LOG_FILTER", "warn"), "listen_on"),
            ("", ("ENDSTATE_HTTP_PORT", "1"), "ENDSTATE_HTTP_PORT"),
            ("", ("ENDSTATE_ENGINE_IN_MOTION", "many"), "in_motion"),
            ("environment = \"Prod\"", ("ENDSTATE_LOG_FILTER", "warn"), "is not an environment"),
            ("[log]\nformat = \"xml\"", ("ENDSTATE_LOG_FILTER", "warn"), "xml"),
        ] {
            let error = load(toml, &[variable]).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        }
    }

    #[test]
    fn a_secret_comes_from_its_file_and_is_never_shown() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "s3cret\nsecond line").unwrap();
        let config = load("", &[("ENDSTATE_PAYMENT_SECRET_FILE", file.path().to_str().unwrap())]).unwrap();
        assert_eq!(config.payment.secret.reveal(), "s3cret");
        let shown = toml::to_string(&config).unwrap() + &format!("{config:?}");
        assert!(!shown.contains("s3cret") && shown.contains("(redacted)"));
    }
}
