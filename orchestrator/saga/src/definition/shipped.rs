//! The definitions that come with the program, their texts inside it.

use super::catalogue::{BUILTIN, BUILTIN_NAME};
use super::source::Source;

/// One shipped definition: its file, its schema, its samples.
macro_rules! definition {
    ($name:literal, $schema:literal, [$($sample:literal),* $(,)?]) => {
        Source {
            file: concat!($name, ".yaml").to_owned(),
            text: include_str!(concat!("../../../sagas/", $name, ".yaml")).to_owned(),
            schemas: [($schema.to_owned(), include_str!(concat!("../../../sagas/", $schema)).to_owned())].into(),
            samples: [$(($sample.to_owned(), include_str!(concat!("../../../sagas/samples/", $name, "/", $sample)).to_owned())),*]
                .into(),
            catalogues: [(BUILTIN_NAME.to_owned(), BUILTIN.to_owned())].into(),
            siblings: ["bench_saga", "flash_sale_order", "refund_order", "refund_payment"].map(str::to_owned).to_vec(),
        }
    };
}

/// The shipped definitions.
#[must_use]
pub fn shipped() -> Vec<Source> {
    vec![
        definition!(
            "bench_saga",
            "schemas/bench_saga.v1.json",
            ["confirm.json", "deduct.json", "lock.json", "ok.json", "reserve.json"]
        ),
        definition!(
            "flash_sale_order",
            "schemas/flash_sale_order.v1.json",
            ["at_order.json", "at_payment.json", "free.json", "full.json",]
        ),
        definition!("refund_order", "schemas/refund_order.v1.json", ["free.json", "lines.json", "whole.json"]),
        definition!("refund_payment", "schemas/refund_payment.v1.json", ["late.json"]),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    #[test]
    fn what_is_inside_the_program_is_what_lies_in_the_folder() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../sagas");
        let inside = shipped();
        let paths = super::super::source::paths_of(&folder, "yaml");
        assert_eq!(paths.len(), inside.len());
        for path in paths {
            let read = Source::read(&path).unwrap();
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            let shipped = inside.iter().find(|source| source.file == name).unwrap();
            assert_eq!((&read.text, &read.schemas, &read.samples), (&shipped.text, &shipped.schemas, &shipped.samples));
            assert_eq!(read.file, path.display().to_string());
            assert_eq!((&read.siblings, &read.catalogues), (&shipped.siblings, &shipped.catalogues));
        }
    }
}
