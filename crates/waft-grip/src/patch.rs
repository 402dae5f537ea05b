//! Body patches (GRIP section 11.2): a publisher changes the JSON body of a held response by RFC 6902 operations.
//!
//! The operations are those of RFC 6902, with one addition: the pointer `/` stands for the root, as GRIP publishers
//! write it.

use json_patch::PatchOperation;
use serde_json::Value;

/// The operations of a patch as they were published. They are checked when applied, as GRIP has no error for a bad
/// operation at the time of publishing.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Patch(Vec<Value>);

/// Why a patch cannot be applied.
#[derive(Debug, thiserror::Error)]
pub enum PatchError {
    /// The body of the held response is not a JSON object or array.
    #[error("body to be patched is not a JSON object or array")]
    Body,
    /// An operation is malformed.
    #[error("patch operation {index} is malformed: {source}")]
    Operation {
        /// Counted from zero.
        index: usize,
        /// What is wrong.
        source: serde_json::Error,
    },
    /// An operation does not apply to the body, or a `test` did not hold.
    #[error("patch does not apply: {0}")]
    Apply(#[from] json_patch::PatchError),
    /// The patched body cannot be written.
    #[error("patched body cannot be written: {0}")]
    Write(serde_json::Error),
}

impl Patch {
    /// A patch of these operations, objects with `op`, `path`, and `value` or `from`.
    #[must_use]
    pub fn new(operations: Vec<Value>) -> Self {
        Self(operations)
    }

    /// The operations as they were published.
    pub fn operations(&self) -> impl Iterator<Item = &Value> {
        self.0.iter()
    }

    /// Applies the patch to `body`. The result is compact JSON with sorted keys; the line end that closed the body is
    /// kept.
    ///
    /// # Errors
    /// [`PatchError`]; nothing of the patch is to be used then.
    pub fn apply(&self, body: &[u8]) -> Result<Vec<u8>, PatchError> {
        let mut document: Value = serde_json::from_slice(body).ok().ok_or(PatchError::Body)?;
        if !matches!(document, Value::Object(_) | Value::Array(_)) {
            return Err(PatchError::Body);
        }
        let operations = self.0.iter().enumerate().map(|(index, operation)| {
            let operation = with_root_pointers(operation);
            serde_json::from_value(operation).map_err(|source| PatchError::Operation { index, source })
        });
        let operations: Vec<PatchOperation> = operations.collect::<Result<_, _>>()?;
        json_patch::patch(&mut document, &operations)?;
        let mut out = serde_json::to_vec(&document).map_err(PatchError::Write)?;
        if body.ends_with(b"\r\n") {
            out.extend_from_slice(b"\r\n");
        } else if body.ends_with(b"\n") {
            out.push(b'\n');
        }
        Ok(out)
    }
}

fn with_root_pointers(operation: &Value) -> Value {
    let mut operation = operation.clone();
    for field in ["path", "from"] {
        if let Some(pointer) = operation.get_mut(field)
            && pointer == "/"
        {
            *pointer = Value::from("");
        }
    }
    operation
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn check(body: &str, operations: Value, expected: Option<&str>) {
        let Value::Array(list) = operations else { panic!("a list of operations") };
        let found = Patch::new(list.clone()).apply(body.as_bytes());
        match expected {
            Some(text) => assert_eq!(String::from_utf8(found.unwrap()).unwrap(), text, "{list:?}"),
            None => assert!(found.is_err(), "{list:?} on {body}"),
        }
    }

    #[test]
    fn operations_follow_rfc_6902() {
        check("[]\n", json!([{"op":"add","path":"/-","value":1}]), Some("[1]\n"));
        check("[1,2]\r\n", json!([{"op":"add","path":"/0","value":0}]), Some("[0,1,2]\r\n"));
        check(r#"{"b":1,"a":2}"#, json!([]), Some(r#"{"a":2,"b":1}"#));
        check(r#"{"a":[]}"#, json!([{"op":"replace","path":"/a","value":{"x":1}}]), Some(r#"{"a":{"x":1}}"#));
        check(r#"{"a":1}"#, json!([{"op":"remove","path":"/a"}]), Some("{}"));
        check(r#"{"a":1}"#, json!([{"op":"move","from":"/a","path":"/b"}]), Some(r#"{"b":1}"#));
        check(r#"{"a":1}"#, json!([{"op":"copy","from":"/a","path":"/b"}]), Some(r#"{"a":1,"b":1}"#));
        check(r#"{"a":1}"#, json!([{"op":"test","path":"/a","value":1}]), Some(r#"{"a":1}"#));
        check(r#"{"":1,"a~/":2}"#, json!([{"op":"remove","path":"/a~0~1"}]), Some(r#"{"":1}"#));
    }

    #[test]
    fn a_lone_slash_is_the_root() {
        check(r#"{"a":1}"#, json!([{"op":"replace","path":"/","value":[2]}]), Some("[2]"));
        check(r#"{"a":[1]}"#, json!([{"op":"copy","from":"/a","path":"/"}]), Some("[1]"));
    }

    #[test]
    fn what_cannot_be_applied_is_an_error() {
        check("", json!([]), None);
        check("text", json!([]), None);
        check("1", json!([]), None);
        check("[]", json!([{"op":"test","path":"/0","value":1}]), None);
        check(r#"{"a":1}"#, json!([{"op":"test","path":"/a","value":2}]), None);
        check("[]", json!([{"op":"remove","path":"/5"}]), None);
        check("[]", json!([{"op":"jump","path":"/5"}]), None);
        check("[]", json!([{"op":"add","path":"no-slash","value":1}]), None);
        check("[]", json!(["text"]), None);
    }
}
