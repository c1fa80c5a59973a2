//! The shipped definitions, checked.

use super::*;
use crate::definition::shipped;

#[test]
fn the_shipped_definitions_load_and_check() {
    for source in shipped() {
        let all = match Definition::load(&source) {
            Ok(definition) => check(&definition),
            Err(all) => all,
        };
        let text: Vec<_> = all.iter().map(ToString::to_string).collect();
        assert!(all.is_empty(), "{}", text.join("\n"));
    }
}
