//! Finds code blocks in Markdown.

use std::fs;

use crate::repository;

/// The manuals whose commands are run.
pub(crate) const MANUALS: [&str; 3] = [
    "README.md",
    "docs/operations.md",
    "php-ext-example/README.md",
];

#[derive(Debug, Clone)]
pub(crate) struct Block {
    /// The manual, and the line where the block begins.
    pub(crate) place: String,
    /// The name in `<!-- run: NAME -->` in the line before the block.
    pub(crate) name: Option<String>,
    /// The language, such as `sh` after the opening fence.
    pub(crate) language: String,
    pub(crate) text: String,
}

/// All blocks of a manual, in their order.
pub(crate) fn blocks(manual: &str) -> Vec<Block> {
    let markdown = fs::read_to_string(repository().join(manual)).unwrap();
    let mut lines = markdown.lines().enumerate();
    let mut blocks = Vec::new();
    let mut name = None;
    while let Some((number, line)) = lines.next() {
        if let Some(language) = line.strip_prefix("```") {
            let text = lines.by_ref().map(|(_, line)| line);
            let text = text.take_while(|line| *line != "```");
            blocks.push(Block {
                place: format!("{manual}:{}", number + 1),
                name: name.take(),
                language: language.into(),
                text: text.map(|line| format!("{line}\n")).collect(),
            });
        }
        name = line
            .strip_prefix("<!-- run: ")
            .and_then(|rest| rest.strip_suffix(" -->"))
            .map(String::from);
    }
    blocks
}

#[test]
fn every_shell_block_of_the_manuals_has_a_name() {
    let unnamed: Vec<String> = MANUALS
        .iter()
        .flat_map(|manual| blocks(manual))
        .filter(|block| block.language == "sh" && block.name.is_none())
        .map(|block| block.place)
        .collect();
    assert!(
        unnamed.is_empty(),
        "write <!-- run: NAME --> before these, and run them in tests/manual: {unnamed:?}"
    );
}
