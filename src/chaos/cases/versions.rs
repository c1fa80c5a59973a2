//! Two versions of a definition in play: some processes know only one by their files, and the active one changes.

use super::Scene;
use crate::chaos::check;
use anyhow::ensure;
use endstate_outbox::{Kind, Rows, Statement, Store as _};
use endstate_saga::definition::shipped;
use reqwest::Method;
use serde_json::json;
use std::path::{Path, PathBuf};

/// The definition, made from this one.
pub(crate) const NAME: &str = "chaos_saga";
const MODEL: &str = "bench_saga";

/// What the second version has before its last stage.
const MORE: &str = "  - stage: again
    status: reserving
    steps:
      again: { call: bench.reserve, with: { fail: =input.fail_at == \"reserve\" }, undo: bench.unreserve }
";

static VERSIONS: Statement = Statement {
    name: "chaos.versions",
    columns: &[Kind::Text],
    sql: "with r(name) as ({rows}) select v.definition_version, count(*)::bigint from saga_view v, r \
          where v.definition = r.name group by 1 order by 1",
};

/// Writes a version's files, and returns their folder.
pub(crate) fn write(folder: &Path, version: u32) -> anyhow::Result<PathBuf> {
    let folder = folder.join(format!("definitions-{version}"));
    let source = shipped().into_iter().find(|source| source.text.contains("saga: bench_saga"));
    let Some(source) = source else { anyhow::bail!("{MODEL} is not shipped") };
    let mut text = source.text.replace("saga: bench_saga", &format!("saga: {NAME}"));
    if version > 1 {
        text = text.replace("version: 1", &format!("version: {version}"));
        text = text.replace("  - stage: confirm\n", &format!("{MORE}  - stage: confirm\n"));
    }
    std::fs::create_dir_all(folder.join("schemas"))?;
    std::fs::create_dir_all(folder.join("samples").join(NAME))?;
    std::fs::write(folder.join(format!("{NAME}.yaml")), text)?;
    for (name, text) in &source.schemas {
        std::fs::write(folder.join(name), text)?;
    }
    for (name, text) in &source.samples {
        std::fs::write(folder.join("samples").join(NAME).join(name), text)?;
    }
    Ok(folder)
}

/// Switches to and fro while processes are killed and come back.
pub(super) async fn switch(scene: &mut Scene<'_>) -> anyhow::Result<()> {
    while scene.goes_on() {
        scene.pause(200, 1_200).await;
        let version = 1 + scene.random.below(2);
        let path = format!("/v1/definitions/{NAME}/activate");
        let answer = scene.shop.call(Method::POST, &path, None, Some(&json!({ "version": version }))).await?;
        // Who takes the call may not have heard of the version yet.
        ensure!(answer.status.is_success() || answer.status == 404, "{path}: {} {}", answer.status, answer.body);
        if answer.status.is_success() {
            scene.done.push(format!("version {version} activated"));
        }
        if scene.random.chance(25) {
            let victim = 1 + scene.random.below(scene.town.members.len() - 1);
            scene.town.members[victim].kill().await?;
            scene.town.members[victim].spawn()?;
            scene.done.push("a process that knows one of them killed".to_owned());
        }
    }
    let rows = check::store(scene.town).await?.read(&VERSIONS, Rows::one([NAME.into()])).await?;
    let counts = rows.iter().filter_map(|row| Some((row[0].int()?, row[1].int()?)));
    let counts: Vec<String> = counts.map(|(version, count)| format!("{count} sagas of version {version}")).collect();
    ensure!(counts.len() == 2, "both versions should have had sagas: {counts:?}");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use endstate_saga::definition::{Definition, Source};

    #[test]
    fn both_versions_are_whole_and_differ() {
        let folder = tempfile::tempdir().unwrap();
        let versions = [1, 2].map(|version| {
            let file = write(folder.path(), version).unwrap().join(format!("{NAME}.yaml"));
            Definition::load(&Source::read(&file).unwrap()).unwrap()
        });
        assert_eq!(versions.each_ref().map(Definition::version), [1, 2]);
        assert_ne!(versions[0].sha256(), versions[1].sha256());
    }
}
