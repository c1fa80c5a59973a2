//! The pages of docs/errors and docs/runbook, in the binary: one for every code that the program prints, one for every
//! alert, and an index of each.

/// (code, page), sorted; the index is `README`.
static PAGES: &[(&str, &str)] = &include!(concat!(env!("OUT_DIR"), "/errors.rs"));

/// (alert, page), sorted; the index is `README`.
static RUNBOOK: &[(&str, &str)] = &include!(concat!(env!("OUT_DIR"), "/runbook.rs"));

/// The index of all codes.
#[must_use]
pub fn index() -> &'static str {
    find("README").unwrap_or_default()
}

/// The page of a code, in upper or lower case, with or without the ending that links in pages have.
#[must_use]
pub fn find(code: &str) -> Option<&'static str> {
    among(PAGES, code)
}

/// The index of all alerts.
#[must_use]
pub fn runbook() -> &'static str {
    find_alert("README").unwrap_or_default()
}

/// The page of an alert: what it means and what to do. Case and ending do not matter, as with codes.
#[must_use]
pub fn find_alert(name: &str) -> Option<&'static str> {
    among(RUNBOOK, name)
}

fn among(pages: &'static [(&str, &str)], name: &str) -> Option<&'static str> {
    let name = name.strip_suffix(".md").unwrap_or(name);
    pages.iter().find(|(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, page)| *page)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_page_is_found_and_in_the_index() {
        assert!(PAGES.len() > 100, "{}", PAGES.len());
        for (code, page) in PAGES.iter().filter(|(code, _)| *code != "README") {
            assert!(page.starts_with(&format!("# {code}: ")), "{code}");
            assert!(index().contains(&format!("[{code}]({code}.md)")), "{code}");
            assert_eq!(find(&format!("{}.md", code.to_lowercase())), Some(*page));
        }
        assert_eq!(find("E9999"), None);
    }

    #[test]
    fn every_alert_is_found_and_in_the_index() {
        assert!(RUNBOOK.len() > 30, "{}", RUNBOOK.len());
        for (alert, page) in RUNBOOK.iter().filter(|(alert, _)| *alert != "README") {
            assert!(page.starts_with(&format!("# {alert}\n")), "{alert}");
            assert!(runbook().contains(&format!("[{alert}]({alert}.md)")), "{alert}");
            assert_eq!(find_alert(&format!("{alert}.md")), Some(*page));
        }
        assert_eq!(find_alert("E2001"), None);
    }
}
