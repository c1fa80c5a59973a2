//! Both pictures of the shipped definitions and of one that uses everything.

use super::*;
use crate::definition::gift::{GIFT, loaded, with};
use crate::definition::shipped;

fn all() -> Vec<Definition> {
    let shipped = shipped().into_iter().map(|source| Definition::load(&source).unwrap());
    shipped.chain([loaded(GIFT)]).collect()
}

#[test]
fn both_pictures_show_every_stage_and_step() {
    for definition in all() {
        for picture in [mermaid(&definition), svg(&definition)] {
            let plan = definition.plan();
            for name in plan.steps.iter().map(|step| &step.name).chain(plan.stages.iter().map(|stage| &stage.name)) {
                assert!(picture.contains(&**name), "{name}");
            }
            assert!(!picture.contains("&&"), "text is escaped");
        }
    }
}

#[test]
fn mermaid_shows_the_way_forward_and_the_ways_back() {
    let text = r#"flowchart TD
  start(["gift version 3"])
  subgraph s0 ["greet"]
    s0_0["greet<br/>notify.send"]
  end
  subgraph s1 ["hold"]
    s1_0["hold_stock<br/>stock.hold<br/>each values.goods<br/>undo stock.release"]
  end
  subgraph s2 ["pay"]
    s2_0["open<br/>payment.open<br/>undo payment.close"]
    s2_wait{{"wait for payment.captured<br/>at the deadline: cancel: unpaid"}}
    s2_0 --> s2_wait
  end
  subgraph s3 ["confirm"]
    s3_0["confirm_stock<br/>stock.confirm<br/>of hold_stock<br/>undo stock.unconfirm"]
    s3_1["book<br/>payment.book"]
  end
  subgraph r0 ["refund"]
    r0_0["refund<br/>payment.refund"]
  end
  start --> s0
  s0 --> s1
  s1 --> s2
  s2 ==> s3
  s3 ==> completed(["completed<br/>status completed"])
  s2 -. "compensate" .-> cancelled(["cancelled<br/>status closed"])
  s3 -. "reverse" .-> r0
  r0 -. "undo all" .-> reversed(["reversed<br/>status refunded"])
  late0[/"late: payment.captured starts refund_payment"/]
"#;
    assert_eq!(mermaid(&loaded(GIFT)), text);
}

#[test]
fn a_pivot_decides_which_ways_back_there_are() {
    let definitions = all();
    let bench = mermaid(&definitions[0]);
    assert!(bench.contains("s3 -. \"compensate\" .-> cancelled") && !bench.contains("reversed"), "no pivot: {bench}");
    let from_the_start = loaded(
        &with("    pivot: true\n", "")
            .replace("stages:\n", "pivot: start\nstages:\n")
            .replace("undo: stock.release\n", "undo: stock.release\n        refused: park\n")
            .replace("undo: payment.close\n", "undo: payment.close\n        refused: park\n")
            .replace("no_undo: said is said", "best_effort: true"),
    );
    let picture = mermaid(&from_the_start);
    assert!(picture.contains("start ==> s0") && !picture.contains("cancelled(["), "{picture}");
    assert!(!svg(&from_the_start).contains("cancelled: closed"));
}

#[test]
fn svg_says_what_ends_reasons_and_late_events_there_are() {
    let picture = svg(&loaded(GIFT));
    for text in [
        ">gift version 3<",
        ">completed: completed<",
        ">undo all, reversed: refunded<",
        ">Before the pivot everything can be undone; cancelled: closed.<",
        ">Cancel reasons: unpaid (deadline).<",
        ">Late: payment.captured starts refund_payment.<",
        ">pivot<",
    ] {
        assert!(picture.contains(text), "{text}: {picture}");
    }
    let when = format!("  - stage: hold\n    when: =input.user != \"{}\"", "u".repeat(80));
    let picture = svg(&loaded(&with("  - stage: hold", &when)));
    assert!(
        picture.contains(&format!("when input.user != &quot;{}...<", "u".repeat(36))),
        "a long line is cut: {picture}"
    );
}

/// A shape of a picture: its class, and the box around it.
#[derive(Clone, Debug, PartialEq)]
struct Drawn {
    tag: String,
    class: String,
    left: f64,
    top: f64,
    right: f64,
    bottom: f64,
    text: String,
}

impl Drawn {
    fn is_in(&self, other: &Self) -> bool {
        self.left >= other.left && self.right <= other.right && self.top >= other.top && self.bottom <= other.bottom
    }

    fn meets(&self, other: &Self) -> bool {
        self.left < other.right && other.left < self.right && self.top < other.bottom && other.top < self.bottom
    }
}

fn unescaped(text: &str) -> String {
    text.replace("&quot;", "\"").replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&")
}

/// Reads a picture back: the whole first, then everything that has a place.
fn drawn(picture: &str) -> Vec<Drawn> {
    let mut found = Vec::new();
    for tag in picture.split('<').skip(1) {
        let (head, text) = tag.split_once('>').unwrap();
        let name = head.split(' ').next().unwrap();
        let attribute = |name: &str| {
            let (_, rest) = head.split_once(&format!(" {name}=\""))?;
            rest.split('"').next().map(str::to_owned)
        };
        let number = |name: &str| attribute(name).and_then(|value| value.parse::<f64>().ok());
        let (left, top, right, bottom) = match name {
            "svg" => (0.0, 0.0, number("width").unwrap(), number("height").unwrap()),
            "rect" if number("x").is_some() => {
                let (x, y) = (number("x").unwrap(), number("y").unwrap());
                (x, y, x + number("width").unwrap(), y + number("height").unwrap())
            }
            "line" => (number("x1").unwrap(), number("y1").unwrap(), number("x2").unwrap(), number("y2").unwrap()),
            // A letter of twelve pixels is less than seven wide, and stands on its line.
            "text" => {
                let (x, y, letters) = (number("x").unwrap(), number("y").unwrap(), unescaped(text).chars().count());
                (x, y - 10.0, x + letters as f64 * 6.5, y + 3.0)
            }
            _ => continue,
        };
        let class = attribute("class").unwrap_or_default();
        found.push(Drawn { tag: name.to_owned(), class, left, top, right, bottom, text: text.to_owned() });
    }
    found
}

fn of<'d>(drawn: &'d [Drawn], tag: &'d str, class: &'d str) -> impl Iterator<Item = &'d Drawn> {
    drawn.iter().filter(move |shape| shape.tag == tag && shape.class.split(' ').any(|one| one == class))
}

#[test]
fn boxes_lie_in_each_other_and_beside_each_other() {
    for definition in all() {
        let (plan, drawn) = (definition.plan(), drawn(&svg(&definition)));
        let whole = &drawn[0];
        assert!(drawn.iter().all(|shape| shape.is_in(whole)), "{}: outside of the picture", plan.definition);
        let stages: Vec<_> = of(&drawn, "rect", "stage").collect();
        assert_eq!(stages.len(), plan.stages.len());
        let inner: Vec<_> = of(&drawn, "rect", "step").chain(of(&drawn, "rect", "wait")).collect();
        let waits = plan.stages.iter().filter(|stage| stage.wait.is_some()).count();
        assert_eq!(inner.len(), plan.steps.len() + waits);
        for shape in &inner {
            assert_eq!(stages.iter().filter(|stage| shape.is_in(stage)).count(), 1, "{shape:?} is in one stage");
        }
        let ends: Vec<_> = of(&drawn, "rect", "good").chain(of(&drawn, "rect", "back")).collect();
        for boxes in [[&stages[..], &ends[..]].concat(), inner] {
            for (index, shape) in boxes.iter().enumerate() {
                let other = boxes[..index].iter().find(|other| shape.meets(other));
                assert_eq!(other, None, "{}: {shape:?} covers another", plan.definition);
            }
        }
    }
}

#[test]
fn every_text_lies_in_its_box_and_covers_no_other() {
    for definition in all() {
        let drawn = drawn(&svg(&definition));
        let texts: Vec<_> = drawn.iter().filter(|shape| shape.tag == "text").collect();
        for (index, text) in texts.iter().enumerate() {
            let other = texts[..index].iter().find(|other| text.meets(other));
            assert_eq!(other, None, "{text:?}");
        }
        let boxes: Vec<_> = drawn.iter().filter(|shape| shape.tag == "rect").collect();
        for text in texts {
            for shape in boxes.iter().filter(|shape| text.meets(shape)) {
                assert!(text.is_in(shape), "{text:?} sticks out of {shape:?}");
            }
        }
        for (index, stage) in definition.plan().stages.iter().enumerate() {
            let shape = of(&drawn, "rect", "stage").nth(index).unwrap();
            let named = |text: &&Drawn| text.text == *stage.name && text.is_in(shape);
            assert!(of(&drawn, "text", "name").any(|text| named(&text)), "{} is named in its box", stage.name);
        }
    }
}

#[test]
fn arrows_lead_from_box_to_box_downwards_and_the_pivot_divides_them() {
    for definition in all() {
        let (plan, drawn) = (definition.plan(), drawn(&svg(&definition)));
        let boxes: Vec<_> = drawn.iter().filter(|shape| shape.tag == "rect").collect();
        let stages: Vec<_> = of(&drawn, "rect", "stage").collect();
        let arrows: Vec<_> = of(&drawn, "line", "arrow").chain(of(&drawn, "line", "after")).collect();
        let ends = 1 + usize::from(plan.pivot != Pivot::Never);
        let reversal = plan.stages.len() - plan.forward_stages;
        assert_eq!(arrows.len(), plan.forward_stages - 1 + reversal.saturating_sub(1) + ends);
        for arrow in &arrows {
            assert!(arrow.left == arrow.right && arrow.top < arrow.bottom, "{arrow:?}");
            let below =
                |shape: &&&Drawn| shape.top == arrow.bottom && shape.left < arrow.left && arrow.left < shape.right;
            assert!(boxes.iter().any(|shape| below(&shape)), "{}: {arrow:?} leads to a box", plan.definition);
            let forward = stages.iter().any(|stage| stage.bottom == arrow.top);
            assert!(forward || arrow.class == "arrow", "{}: {arrow:?} begins at a stage", plan.definition);
        }
        let pivots: Vec<_> = of(&drawn, "line", "pivot").collect();
        let Pivot::Stage(index) = plan.pivot else {
            assert!(pivots.is_empty());
            continue;
        };
        assert_eq!(pivots.len(), 1);
        let (above, below) = (stages[index], stages.get(index + 1).filter(|_| index + 1 < plan.forward_stages));
        let y = pivots[0].top;
        assert!(above.bottom < y && below.is_none_or(|stage| y < stage.top), "{}: {y}", plan.definition);
        assert_eq!((pivots[0].left, pivots[0].right), (above.left, above.right));
        for arrow in of(&drawn, "line", "after") {
            assert!(arrow.bottom > y, "what is drawn thick comes after the pivot");
        }
        let after = plan.forward_stages - index - 1;
        assert_eq!(of(&drawn, "line", "after").count(), after, "{}", plan.definition);
    }
}
