//! The whole program under SIGKILL: a small sale whose worker is killed again and again; every order final, books equal.

use crate::program::run;
use serde_json::Value;
use std::fmt::Write as _;

/// A sale of its own: scarce goods, coupons, points, every stock strategy, buyers who pay, lapse, cancel and repeat.
fn small_sale() -> String {
    let mut sale = String::from("{\"sale\":{\"version\":1,\"name\":\"kill test\",\"currency\":\"CNY\"}}\n");
    for (id, strategy) in [("R", "reserve"), ("O", "at_order"), ("P", "at_payment")] {
        let line =
            format!(r#"{{"promotion":{{"id":"{id}","name":"{id}","stock_strategy":"{strategy}","pay_within_s":3}}}}"#);
        writeln!(sale, "{line}").unwrap();
    }
    sale += "{\"goods\":{\"sku\":\"A\",\"name\":\"plenty\",\"price_minor\":9900,\"stock\":100}}\n";
    sale += "{\"goods\":{\"sku\":\"B\",\"name\":\"scarce\",\"price_minor\":5000,\"stock\":3,\"standby\":2}}\n";
    sale += "{\"customer\":{\"id\":\"u\",\"name\":\"李\",\"points\":500,\"coupons\":[{\"id\":\"C\",\"value_minor\":1000}]}}\n";
    let stories = [
        "pay",
        "pay_repeated",
        "pay_twice",
        "pay_late",
        "lapse",
        "cancel_before_payment",
        "risk_cancel",
        "refund_line",
    ];
    for order in 0..40 {
        let (promotion, sku) = (["R", "O", "P"][order % 3], if order % 4 == 0 { "B" } else { "A" });
        let extra = match order {
            5 | 6 => r#""coupon":"C","#,
            7 => r#""points":300,"#,
            8 => r#""points":4000,"#,
            _ => "",
        };
        let line = format!(
            r#"{{"journey":{{"order":"K{order}","at_ms":{},"customer":"u","promotion":"{promotion}","lines":[{{"sku":"{sku}","quantity":1}}],{extra}"story":"{}"}}}}"#,
            order * 100,
            stories[order % stories.len()],
        );
        writeln!(sale, "{line}").unwrap();
    }
    sale
}

#[test]
fn orders_survive_a_worker_that_is_killed_and_the_books_agree() {
    survive(&[]);
}

#[test]
fn orders_survive_a_fused_worker_that_is_killed_and_the_books_agree() {
    survive(&["--fused"]);
}

fn survive(mode: &[&str]) {
    let folder = tempfile::tempdir().unwrap();
    let (file, keep) = (folder.path().join("sale.ndjson"), folder.path().join("run"));
    std::fs::write(&file, small_sale()).unwrap();
    let (file, keep) = (file.to_str().unwrap(), keep.to_str().unwrap());
    let arguments = ["demo", "--sale", file, "--keep", keep, "--kills", "3", "-o", "json"];
    let demo = run(&[&arguments[..], mode].concat());
    let report: Value = serde_json::from_str(&demo.out).unwrap_or_else(|_| panic!("no report:\n{}", demo.err));
    assert_eq!(demo.code, 0, "{}\n{report:#}", demo.err);
    assert_eq!((&report["orders"], &report["final"]), (&Value::from(40), &Value::from(40)));
    assert_eq!(report["kills"].as_array().unwrap().len(), 3);
    assert_eq!(report["balanced"], true);
    assert!(report["outcomes"]["completed"].as_u64().unwrap() > 0, "{report:#}");
}
