//! What an operator wants to know about a Redis before the gate trusts it: one finding per question. Nothing is changed.
//! The gate forgets no buyer only where Redis throws nothing out, and has on disk what it has answered.

use crate::postgres::examine::{Finding, Grade, finding, skew};
use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, Client, FromRedisValue, RedisError};
use std::collections::HashMap;
use std::time::Duration;

/// How long it may take to answer.
const ANSWER: Duration = Duration::from_secs(5);

/// The oldest version that has what the gate needs.
const OLDEST: (u32, u32) = (6, 2);

/// Asks everything; what cannot be asked because something before it is bad is left out. `url` is never shown.
pub async fn examine(url: &str) -> Vec<Finding> {
    let mut findings = Vec::new();
    if let Err(error) = ask_all(url, &mut findings).await {
        let advice = "start Redis, or correct redis.url";
        findings.push(finding("redis.reach", Grade::Bad, error).advice(advice));
    }
    findings
}

async fn ask_all(url: &str, findings: &mut Vec<Finding>) -> Result<(), String> {
    let client = Client::open(url).map_err(|error| format!("redis.url: {error}"))?;
    let address = client.get_connection_info().addr().to_string();
    let at = |error: RedisError| format!("{address}: {error}");
    let config = AsyncConnectionConfig::new().set_connection_timeout(Some(ANSWER)).set_response_timeout(Some(ANSWER));
    let mut redis = client.get_multiplexed_async_connection_with_config(&config).await.map_err(at)?;
    let server = info(&mut redis, "server").await.map_err(at)?;
    findings.push(finding("redis.reach", Grade::Good, format!("{address} answers")));
    findings.push(version(server.get("redis_version").map_or("", String::as_str)));
    let replication = info(&mut redis, "replication").await.map_err(at)?;
    let before = skew::now_ms();
    let (seconds, micros): (i64, i64) = ask(&mut redis, "TIME", &[]).await.map_err(at)?;
    findings.push(skew::of("redis.clock", "Redis's", before, seconds * 1_000 + micros / 1_000));
    match settings(&mut redis).await {
        Ok(settings) => {
            let setting = |name: &str| settings.get(name).map_or("", String::as_str);
            findings.push(memory(setting("maxmemory-policy"), setting("maxmemory")));
            findings.push(disk(setting("appendonly"), setting("appendfsync")));
            findings.push(replicas(&replication, setting("min-replicas-to-write")));
        }
        Err(error) => {
            let text = format!("its settings cannot be read: {error}");
            let advice = "let this user run CONFIG GET; or make sure of maxmemory-policy, appendonly and appendfsync";
            findings.push(finding("redis.settings", Grade::Mind, text).advice(advice));
        }
    }
    Ok(())
}

async fn ask<T: FromRedisValue>(
    redis: &mut MultiplexedConnection,
    command: &str,
    words: &[&str],
) -> Result<T, RedisError> {
    let mut command = redis::cmd(command);
    words.iter().for_each(|word| _ = command.arg(*word));
    command.query_async(redis).await
}

/// A section of what it tells of itself.
async fn info(redis: &mut MultiplexedConnection, section: &str) -> Result<HashMap<String, String>, RedisError> {
    let text: String = ask(redis, "INFO", &[section]).await?;
    let pairs = text.lines().filter_map(|line| line.trim().split_once(':'));
    Ok(pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).collect())
}

/// One by one: only Redis 7 takes several names.
async fn settings(redis: &mut MultiplexedConnection) -> Result<HashMap<String, String>, RedisError> {
    let mut all = HashMap::new();
    for name in ["maxmemory-policy", "maxmemory", "appendonly", "appendfsync", "min-replicas-to-write"] {
        all.extend(ask::<HashMap<String, String>>(redis, "CONFIG", &["GET", name]).await?);
    }
    Ok(all)
}

fn version(version: &str) -> Finding {
    let mut parts = version.split('.').map(|part| part.parse::<u32>().unwrap_or(0));
    let found = (parts.next().unwrap_or(0), parts.next().unwrap_or(0));
    let text = format!("version {version}");
    if found >= OLDEST {
        return finding("redis.version", Grade::Good, text);
    }
    finding("redis.version", Grade::Bad, text).advice(format!("upgrade it to {}.{} or later", OLDEST.0, OLDEST.1))
}

fn memory(policy: &str, most: &str) -> Finding {
    let bound = if most == "0" { "no maxmemory".to_owned() } else { format!("maxmemory {most}") };
    let text = format!("maxmemory-policy {policy}, {bound}");
    if policy == "noeviction" {
        return finding("redis.memory", Grade::Good, text);
    }
    let text = format!("{text}: when memory is short it forgets who has bought");
    finding("redis.memory", Grade::Bad, text).advice("set maxmemory-policy noeviction")
}

fn disk(appendonly: &str, appendfsync: &str) -> Finding {
    let text = format!("appendonly {appendonly}, appendfsync {appendfsync}");
    if appendonly == "yes" && matches!(appendfsync, "everysec" | "always") {
        return finding("redis.disk", Grade::Good, text);
    }
    let text = format!("{text}: a restart forgets what was answered");
    finding("redis.disk", Grade::Bad, text).advice("set appendonly yes, and appendfsync everysec or always")
}

fn replicas(replication: &HashMap<String, String>, least: &str) -> Finding {
    let told = |name: &str| replication.get(name).map_or("", String::as_str);
    let check = "redis.replicas";
    if told("role") != "master" {
        let text = format!("its role is {}: it takes no writes", told("role"));
        return finding(check, Grade::Bad, text).advice("name the primary in redis.url");
    }
    let connected = told("connected_slaves");
    let text = format!("{connected} replicas, min-replicas-to-write {least}");
    if matches!(connected, "" | "0") || matches!(least, "" | "0") {
        let text = format!("{text}: a failover forgets what no replica has, and the gate is rebuilt from the ledger");
        return finding(check, Grade::Mind, text).advice("run a replica, and set min-replicas-to-write 1");
    }
    finding(check, Grade::Good, text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_redis_tells_of_itself_is_graded() {
        for (told, grade) in [("7.0.15", Grade::Good), ("6.2.0", Grade::Good), ("6.0.16", Grade::Bad), ("", Grade::Bad)]
        {
            assert_eq!(version(told).grade, grade, "{told}");
        }
        assert_eq!(memory("noeviction", "0").grade, Grade::Good);
        assert_eq!(memory("volatile-lru", "100").grade, Grade::Bad);
        for (only, sync, grade) in [
            ("yes", "everysec", Grade::Good),
            ("yes", "always", Grade::Good),
            ("yes", "no", Grade::Bad),
            ("no", "always", Grade::Bad),
        ] {
            assert_eq!(disk(only, sync).grade, grade, "{only} {sync}");
        }
        for (role, connected, least, grade) in [
            ("master", "1", "1", Grade::Good),
            ("master", "0", "1", Grade::Mind),
            ("master", "2", "0", Grade::Mind),
            ("slave", "0", "1", Grade::Bad),
        ] {
            let told = [("role", role), ("connected_slaves", connected)];
            let told = told.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
            assert_eq!(replicas(&told, least).grade, grade, "{role} {connected} {least}");
        }
    }

    #[tokio::test]
    async fn a_secret_of_an_address_is_not_told() {
        for url in ["redis://:s3cret@127.0.0.1:1/", "redis//:s3cret@h", "rediss://:s3cret@127.0.0.1:1/"] {
            let found = examine(url).await;
            assert_eq!((found.len(), found[0].check, found[0].grade), (1, "redis.reach", Grade::Bad), "{url}");
            assert!(!found[0].text.contains("s3cret"), "{}", found[0].text);
        }
    }
}
