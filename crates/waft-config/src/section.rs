//! One definition of a section of the configuration: its struct, its defaults and its reference.

/// A key of a section, for the reference.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Key {
    pub(crate) name: &'static str,
    /// The lines of its documentation.
    pub(crate) doc: &'static [&'static str],
    /// How it may be written, for a key whose default is to be absent.
    pub(crate) example: Option<&'static str>,
}

/// A section of the configuration.
pub(crate) trait Section {
    const ABOUT: &'static [&'static str];
    const KEYS: &'static [Key];
}

/// Defines a section. A function cannot see documentation, and the reference is made of it.
macro_rules! section {
    (
        $(#[doc = $about:literal])+
        $name:ident {
            $( $(#[doc = $doc:literal])+ $field:ident : $ty:ty = $default:expr $(, as $example:literal)? ; )+
        }
    ) => {
        $(#[doc = $about])+
        #[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
        #[serde(default, deny_unknown_fields)]
        pub struct $name {
            $( $(#[doc = $doc])+ pub $field: $ty, )+
        }

        impl Default for $name {
            fn default() -> Self {
                Self { $( $field: $default, )+ }
            }
        }

        impl crate::section::Section for $name {
            const ABOUT: &'static [&'static str] = &[$($about),+];
            const KEYS: &'static [crate::section::Key] = &[$(
                crate::section::Key {
                    name: stringify!($field),
                    doc: &[$($doc),+],
                    example: section!(@example $($example)?),
                },
            )+];
        }
    };
    (@example) => { None };
    (@example $example:literal) => { Some($example) };
}

pub(crate) use section;
