//! Pages in Markdown as far as these tests have to understand them.

/// The rows of all tables of a page, without those that head them.
pub(crate) fn rows(page: &str) -> impl Iterator<Item = Vec<String>> {
    let lines: Vec<&str> = page.lines().collect();
    let is_rule = |line: Option<&&str>| line.is_some_and(|line| line.starts_with("|--") || line.starts_with("| --"));
    let cells = |line: &str| line.trim_matches('|').split(" | ").map(|cell| cell.trim().to_owned()).collect();
    let rows: Vec<Vec<String>> = lines
        .iter()
        .enumerate()
        .filter(|(number, line)| line.starts_with('|') && !is_rule(Some(*line)) && !is_rule(lines.get(number + 1)))
        .map(|(_, line)| cells(line))
        .collect();
    rows.into_iter()
}

/// A fenced block.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Block {
    /// The first word behind the fence: `sh` for commands, `text` for what they write.
    pub(crate) language: String,
    /// What else stands there, as `name=value`.
    pub(crate) marks: Vec<(String, String)>,
    pub(crate) text: String,
}

impl Block {
    pub(crate) fn mark(&self, name: &str) -> Option<&str> {
        self.marks.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }
}

/// The fenced blocks of a page in their order.
pub(crate) fn blocks(page: &str) -> Vec<Block> {
    let mut blocks = Vec::new();
    let mut lines = page.lines();
    while let Some(line) = lines.next() {
        let Some(info) = line.strip_prefix("```") else { continue };
        let mut words = info.split_whitespace();
        let language = words.next().unwrap_or_default().to_owned();
        let marks = words.filter_map(|word| word.split_once('=')).map(|(name, value)| (name.into(), value.into()));
        let marks = marks.collect();
        let text =
            lines.by_ref().take_while(|line| *line != "```").fold(String::new(), |text, line| text + line + "\n");
        blocks.push(Block { language, marks, text });
    }
    blocks
}

#[test]
fn blocks_and_rows_are_found() {
    let page = "# a\n```sh name=x\none\ntwo\n```\ntext\n```text\nthree\n```\n| a | b |\n|---|---|\n| `c` | d |\n";
    let found = blocks(page);
    assert_eq!(
        (found[0].text.as_str(), found[0].mark("name"), found[1].text.as_str()),
        ("one\ntwo\n", Some("x"), "three\n")
    );
    assert_eq!(rows(page).collect::<Vec<_>>(), [["`c`", "d"]]);
}
