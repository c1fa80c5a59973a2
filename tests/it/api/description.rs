//! The committed description of the API is the one the code gives. To renew it: `ENDSTATE_BLESS=1 cargo test --test it description`.

use super::*;
use std::collections::BTreeSet;

const FILE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/openapi.json");

async fn described() -> String {
    let folder = tempfile::tempdir().unwrap();
    let store = SqliteStore::open(folder.path()).await.unwrap();
    let definitions = Definitions::open(store.clone()).await.unwrap();
    let bus: Arc<dyn Bus> = store.bus();
    let gateway = Gateway::new(store.clone(), bus, Arc::new(SystemClock), definitions, Arc::default());
    let tokens = Arc::new(Tokens::load(store.clone()).await.unwrap());
    http::description(routes(&store, gateway, tokens, &Drain::default(), Census::of(0)))
}

#[tokio::test]
async fn the_committed_description_is_current() {
    let text = described().await;
    if std::env::var_os("ENDSTATE_BLESS").is_some() {
        std::fs::write(FILE, &text).unwrap();
    }
    let committed = std::fs::read_to_string(FILE).unwrap_or_default();
    assert!(committed == text, "docs/openapi.json is stale: ENDSTATE_BLESS=1 cargo test --test it description");
}

#[tokio::test]
async fn every_schema_that_is_referred_to_is_there() {
    let description: Value = serde_json::from_str(&described().await).unwrap();
    let text = description.to_string();
    for reference in text.split(r##""$ref":"#"##).skip(1).filter_map(|rest| rest.split('"').next()) {
        assert!(description.pointer(reference).is_some(), "{reference}");
    }
}

#[tokio::test]
async fn every_operation_has_a_name_a_tag_words_and_every_body_an_example() {
    let description: Value = serde_json::from_str(&described().await).unwrap();
    assert_eq!(description["openapi"].as_str().map(|version| &version[..3]), Some("3.1"));
    let mut names = BTreeSet::new();
    for (path, methods) in description["paths"].as_object().unwrap() {
        for (method, operation) in methods.as_object().unwrap() {
            let name = operation["operationId"].as_str().unwrap();
            assert!(names.insert(name.to_owned()), "{name} twice");
            assert!(operation["tags"][0].is_string() && operation["summary"].is_string(), "{method} {path}");
            let known: BTreeSet<_> = Scope::ALL.iter().map(|scope| scope.label()).collect();
            for scope in
                operation["security"].as_array().into_iter().flatten().flat_map(|any| any["token"].as_array().unwrap())
            {
                assert!(known.contains(scope.as_str().unwrap()), "{method} {path}: {scope}");
            }
        }
    }
}
