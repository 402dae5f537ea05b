//! An ordered list of header fields that waft builds or edits.

use std::fmt;

use crate::head::{FieldSpan, Span};

/// An ordered list of header fields. Names are compared in any case and kept as given.
///
/// Nothing is checked here; `HeadWriter` makes sure that no field can break out of its line.
#[derive(Clone, Default)]
pub struct Fields {
    /// All names one behind the other. Those of removed fields stay until the list is dropped.
    names: String,
    values: Vec<u8>,
    spans: Vec<FieldSpan>,
}

impl Fields {
    /// An empty list.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a field at the end, beside others of its name.
    pub fn push(&mut self, name: impl AsRef<str>, value: impl AsRef<[u8]>) {
        let span = self.store(name.as_ref(), value.as_ref());
        self.spans.push(span);
    }

    /// The value of the first field with this name.
    pub fn get(&self, name: &str) -> Option<&[u8]> {
        self.get_all(name).next()
    }

    /// The values of all fields with this name.
    pub fn get_all<'a>(&'a self, name: &str) -> impl Iterator<Item = &'a [u8]> + Clone {
        self.iter().filter(move |(other, _)| other.eq_ignore_ascii_case(name)).map(|(_, value)| value)
    }

    /// True if there is a field with this name.
    pub fn contains(&self, name: &str) -> bool {
        self.get(name).is_some()
    }

    /// Removes all fields with this name; says whether there were any.
    pub fn remove(&mut self, name: &str) -> bool {
        let before = self.len();
        self.retain(|other, _| !other.eq_ignore_ascii_case(name));
        self.len() < before
    }

    /// Makes this the only field with its name: in the place of the first such field, else at the end.
    pub fn set(&mut self, name: impl AsRef<str>, value: impl AsRef<[u8]>) {
        let (name, value) = (name.as_ref(), value.as_ref());
        let place = self.iter().position(|(other, _)| other.eq_ignore_ascii_case(name));
        self.remove(name);
        let span = self.store(name, value);
        self.spans.insert(place.unwrap_or(self.spans.len()), span);
    }

    /// Keeps the fields for which `keep` says so.
    pub fn retain(&mut self, mut keep: impl FnMut(&str, &[u8]) -> bool) {
        let Self { names, values, spans } = self;
        spans.retain(|span| keep(name_at(names, *span), value_at(values, *span)));
    }

    /// The fields in order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &[u8])> + Clone {
        self.spans.iter().map(|span| (name_at(&self.names, *span), value_at(&self.values, *span)))
    }

    /// The number of fields.
    pub fn len(&self) -> usize {
        self.spans.len()
    }

    /// True if there are no fields.
    pub fn is_empty(&self) -> bool {
        self.spans.is_empty()
    }

    fn store(&mut self, name: &str, value: &[u8]) -> FieldSpan {
        let name_start = self.names.len();
        self.names.push_str(name);
        let value_start = self.values.len();
        self.values.extend_from_slice(value);
        FieldSpan { name: Span::new(name_start, self.names.len()), value: Span::new(value_start, self.values.len()) }
    }
}

fn name_at(names: &str, span: FieldSpan) -> &str {
    names.get(span.name.start()..span.name.end()).unwrap_or_default()
}

fn value_at(values: &[u8], span: FieldSpan) -> &[u8] {
    values.get(span.value.start()..span.value.end()).unwrap_or_default()
}

impl<N: AsRef<str>, V: AsRef<[u8]>> FromIterator<(N, V)> for Fields {
    fn from_iter<I: IntoIterator<Item = (N, V)>>(fields: I) -> Self {
        let mut list = Self::new();
        list.extend(fields);
        list
    }
}

impl<N: AsRef<str>, V: AsRef<[u8]>> Extend<(N, V)> for Fields {
    fn extend<I: IntoIterator<Item = (N, V)>>(&mut self, fields: I) {
        for (name, value) in fields {
            self.push(name, value);
        }
    }
}

impl fmt::Debug for Fields {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.iter().map(|(name, value)| (name, String::from_utf8_lossy(value)))).finish()
    }
}

/// Equal when names (in any case) and values are the same in the same order.
impl PartialEq for Fields {
    fn eq(&self, other: &Self) -> bool {
        self.len() == other.len()
            && self.iter().zip(other.iter()).all(|(a, b)| a.0.eq_ignore_ascii_case(b.0) && a.1 == b.1)
    }
}

impl Eq for Fields {}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(fields: &[(&str, &str)]) -> Fields {
        fields.iter().copied().collect()
    }

    #[test]
    fn names_are_found_in_any_case_and_order_is_kept() {
        let fields = list(&[("A", "1"), ("b", "2"), ("a", "3")]);
        assert_eq!(fields.get("a"), Some(b"1".as_slice()));
        assert_eq!(fields.get_all("a").collect::<Vec<_>>(), [b"1", b"3"]);
        assert!(fields.contains("B") && !fields.contains("c"));
        assert_eq!(fields.iter().map(|(name, _)| name).collect::<Vec<_>>(), ["A", "b", "a"]);
    }

    #[test]
    fn set_replaces_in_place_and_drops_repetitions() {
        let mut fields = list(&[("x", "0"), ("A", "1"), ("b", "2"), ("a", "3")]);
        fields.set("a", "new");
        assert_eq!(fields, list(&[("x", "0"), ("a", "new"), ("b", "2")]));
        fields.set("C", b"end");
        assert_eq!(fields, list(&[("x", "0"), ("a", "new"), ("b", "2"), ("c", "end")]));
    }

    #[test]
    fn remove_and_retain_take_fields_out() {
        let mut fields = list(&[("A", "1"), ("b", "2"), ("a", "3")]);
        assert!(fields.remove("a"));
        assert!(!fields.remove("a"));
        assert_eq!(fields, list(&[("B", "2")]));
        fields.push("Grip-Hold", "stream");
        fields.retain(|name, _| !name.starts_with("Grip-"));
        assert_eq!(fields.len(), 1);
        fields.remove("b");
        assert!(fields.is_empty());
    }

    #[test]
    fn different_values_or_orders_are_not_equal() {
        assert_ne!(list(&[("a", "1")]), list(&[("a", "2")]));
        assert_ne!(list(&[("a", "1"), ("b", "1")]), list(&[("b", "1"), ("a", "1")]));
        assert_ne!(list(&[("a", "1")]), list(&[]));
    }
}
