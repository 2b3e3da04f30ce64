//! Configuration files: the layout of an accepted file does not change its meaning, and an error names a place in the file.

use crate::config::Config;

pub(super) fn check(bytes: &[u8]) {
    let Ok(text) = str::from_utf8(bytes) else {
        return;
    };
    match Config::parse(text) {
        Ok(config) => {
            let table: toml::Table = text.parse().expect("what was accepted is TOML");
            let again = Config::parse(&table.to_string()).expect("the same settings");
            assert_eq!(again, config);
        }
        Err(mistake) => check_mistake(text, &mistake.to_string()),
    }
}

/// Checks an error: `LINE:COLUMN: KEY: REASON`, and then the line.
fn check_mistake(text: &str, mistake: &str) {
    let mut parts = mistake.splitn(3, ':');
    let mut number = || parts.next().and_then(|part| part.parse::<usize>().ok());
    let (line, column) = (number().expect("a line"), number().expect("a column"));
    // An empty line follows the last line end.
    let place = text.split('\n').nth(line - 1).expect("it is in the file");
    assert!(
        (1..=place.chars().count() + 1).contains(&column),
        "{mistake}"
    );
    let shown = text.lines().nth(line - 1).unwrap_or_default();
    assert!(shown.trim().is_empty() || mistake.ends_with(&format!("\n  {line} | {shown}")));
}
