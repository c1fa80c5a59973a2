//! The pages of docs/errors, in the binary: one for every code that the program prints, and the index.

/// (code, page), sorted; the index is `README`.
static PAGES: &[(&str, &str)] = &include!(concat!(env!("OUT_DIR"), "/pages.rs"));

/// The index of all codes.
#[must_use]
pub fn index() -> &'static str {
    find("README").unwrap_or_default()
}

/// The page of a code, in upper or lower case, with or without the ending that links in pages have.
#[must_use]
pub fn find(code: &str) -> Option<&'static str> {
    let code = code.strip_suffix(".md").unwrap_or(code);
    PAGES.iter().find(|(known, _)| known.eq_ignore_ascii_case(code)).map(|(_, page)| *page)
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
}
