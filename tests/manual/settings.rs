//! Edits `/etc/comet.toml`, which has every setting, as a reader of the manual does.

/// Returns the file with these lines added. A value replaces the old value in its table. A table in double brackets is
/// appended at the end.
pub(crate) fn edited(file: &str, lines: &str) -> String {
    let mut file: Vec<String> = file.lines().map(String::from).collect();
    let mut table = String::new();
    for line in lines.lines().filter(|line| !line.trim().is_empty()) {
        if line.starts_with('[') {
            table = line.into();
        }
        if table.starts_with("[[") {
            file.push(line.into());
        } else if let Some((key, _)) = line.split_once(" = ") {
            let place = place_of(&file, &table, key);
            file[place] = line.into();
        }
    }
    file.join("\n") + "\n"
}

/// The line of a key in its table, whether the key is set or commented out.
fn place_of(file: &[String], table: &str, key: &str) -> usize {
    let begins = |line: &&String| table.is_empty() || line.as_str() == table;
    let table_at = file.iter().position(|line| begins(&line)).unwrap();
    let is_key = |line: &String| {
        line.trim_start_matches('#')
            .starts_with(&format!("{key} = "))
    };
    let in_table = file[table_at..].iter().position(is_key);
    table_at + in_table.unwrap_or_else(|| panic!("{table} has no {key}"))
}

#[test]
fn sets_values_in_their_tables_and_adds_rules_at_the_end() {
    let file = "dir = \"/a\"\n[spool]\n#dir = \"/b\"\n[http]\nhosts = []\n";
    let lines = "dir = \"/x\"\n[spool]\ndir = \"/y\"\n\n[[channel]]\nprefix = \"z\"\n";
    assert_eq!(
        edited(file, lines),
        "dir = \"/x\"\n[spool]\ndir = \"/y\"\n[http]\nhosts = []\n[[channel]]\nprefix = \"z\"\n"
    );
}
