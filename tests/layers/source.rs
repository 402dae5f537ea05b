//! Rust sources as far as these tests have to understand them.

use std::path::{Path, PathBuf};

/// All Rust files below a directory.
pub(crate) fn files(directory: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            if !path.ends_with("node_modules") && !path.ends_with("target") {
                files.extend(self::files(&path));
            }
        } else if path.extension().is_some_and(|kind| kind == "rs") {
            files.push(path);
        }
    }
    files
}

/// A source without its comments and without what stands in strings.
pub(crate) fn code(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(next) = rest.chars().next() {
        let skipped = if rest.starts_with("//") {
            rest.find('\n').unwrap_or(rest.len())
        } else if rest.starts_with("/*") {
            rest.find("*/").map_or(rest.len(), |end| end + 2)
        } else if next == '"' {
            string(rest)
        } else if rest.starts_with("r\"") || rest.starts_with("r#") {
            raw_string(rest)
        } else if rest.starts_with("'\"'") || rest.starts_with("'\\\"'") {
            rest[1..].find('\'').map_or(1, |end| end + 2)
        } else if rest.starts_with("b'\"'") {
            4
        } else {
            0
        };
        if skipped == 0 {
            out.push(next);
            rest = &rest[next.len_utf8()..];
        } else {
            out.push(' ');
            rest = &rest[skipped..];
        }
    }
    out
}

/// The length of the string literal that a text begins with.
fn string(text: &str) -> usize {
    let mut escaped = false;
    for (at, byte) in text.bytes().enumerate().skip(1) {
        match byte {
            _ if escaped => escaped = false,
            b'\\' => escaped = true,
            b'"' => return at + 1,
            _ => {}
        }
    }
    text.len()
}

/// The length of the raw string literal that a text begins with; 0 if it begins with a raw name instead.
fn raw_string(text: &str) -> usize {
    let hashes = text.bytes().skip(1).take_while(|byte| *byte == b'#').count();
    let begin = hashes + 2;
    if text.as_bytes().get(begin - 1) != Some(&b'"') {
        return 0;
    }
    let end = format!("\"{}", "#".repeat(hashes));
    text[begin..].find(&end).map_or(text.len(), |at| begin + at + end.len())
}

/// Code without the module of unit tests, which stands last.
pub(crate) fn without_unit_tests(code: &str) -> String {
    let at = code.find("#[cfg(test)]\nmod tests {").unwrap_or(code.len());
    code[..at].to_owned()
}

/// The words of a text.
pub(crate) fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split(|letter: char| !letter.is_alphanumeric() && letter != '_')
}

#[test]
fn comments_and_strings_are_no_code() {
    for (text, expected) in [
        ("a // unsafe\nb", "a  \nb"),
        ("a /* unsafe */ b", "a   b"),
        ("f(\"un\\\"safe\", 1)", "f( , 1)"),
        ("f(r#\"un\"safe\"#, 1)", "f( , 1)"),
        ("let r#type = '\"'; x", "let r#type =  ; x"),
        ("b'\"' unsafe", "  unsafe"),
    ] {
        assert_eq!(code(text), expected, "{text}");
    }
    assert_eq!(without_unit_tests("a\n#[cfg(test)]\nmod tests {\nb }"), "a\n");
    assert!(words("a unsafe{}").any(|word| word == "unsafe"));
    assert!(!words("unsafe_code").any(|word| word == "unsafe"));
}
