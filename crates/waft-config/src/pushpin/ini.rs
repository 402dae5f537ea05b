//! INI files: sections, keys, values, comments.

/// A value and where it stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) section: String,
    pub(super) key: String,
    pub(super) value: String,
    /// From 1.
    pub(super) line: usize,
}

/// The entries of a file, and the lines that are none.
pub(super) fn entries(text: &str) -> (Vec<Entry>, Vec<usize>) {
    let mut section = String::new();
    let mut entries = Vec::new();
    let mut strange = Vec::new();
    for (line, number) in text.lines().zip(1..) {
        let line = line.trim();
        if line.is_empty() || line.starts_with(['#', ';']) {
            continue;
        }
        if let Some(name) = line.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
            name.trim().clone_into(&mut section);
        } else if let Some((key, value)) = line.split_once('=') {
            let value = value.trim();
            let value = value.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')).unwrap_or(value);
            let (section, key) = (section.clone(), key.trim().to_owned());
            entries.push(Entry { section, key, value: value.to_owned(), line: number });
        } else {
            strange.push(number);
        }
    }
    (entries, strange)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_taken_apart() {
        let (entries, strange) =
            entries("a=0\n[ one ]\n# x=1\n; y=2\n b = c=d \nnonsense\r\n\n[two]\nq=\"e f\"\nempty=\n");
        let flat: Vec<_> =
            entries.iter().map(|e| (e.section.as_str(), e.key.as_str(), e.value.as_str(), e.line)).collect();
        let expected = [("", "a", "0", 1), ("one", "b", "c=d", 5), ("two", "q", "e f", 9), ("two", "empty", "", 10)];
        assert_eq!(flat, expected);
        assert_eq!(strange, [6]);
    }
}
