//! The plan written as TOML: the reference of all keys, and what differs from the defaults.

use std::fmt::Write as _;

use toml::{Table, Value};

use crate::plan::Plan;
use crate::realm::RealmEntry;
use crate::route::RouteEntry;
use crate::section::{Key, Section as _};

/// Every key with its meaning and its default, as a file that means the defaults.
pub fn print_defaults() -> String {
    let mut out = String::from(
        "# Every key of waft.toml with its default. A key whose line is commented is absent by default.\n\
         # WAFT_SECTION__KEY=value in the environment goes before the file, and --set section.key=value before both.\n\n\
         # A Pushpin routes file to use instead of [[route]], beside this file. Bad lines are left out and told.\n\
         # routes_file = \"routes\"\n",
    );
    Plan::default().each_section(&mut |section| {
        heading(&mut out, section.about);
        let _ = writeln!(out, "[{}]", section.name);
        keys(&mut out, section.keys, &section.defaults, false);
    });
    heading(&mut out, RouteEntry::ABOUT);
    out.push_str("# [[route]]\n");
    keys(&mut out, RouteEntry::KEYS, &Table::try_from(RouteEntry::default()).unwrap_or_default(), true);
    heading(&mut out, RealmEntry::ABOUT);
    out.push_str("# [[realm]]\n");
    keys(&mut out, RealmEntry::KEYS, &Table::try_from(RealmEntry::default()).unwrap_or_default(), true);
    out
}

fn heading(out: &mut String, about: &[&str]) {
    out.push('\n');
    comment(out, about);
}

fn comment(out: &mut String, lines: &[&str]) {
    for line in lines {
        let _ = writeln!(out, "#{line}");
    }
}

fn keys(out: &mut String, keys: &[Key], defaults: &Table, all_commented: bool) {
    for key in keys {
        comment(out, key.doc);
        let _ = match (defaults.get(key.name), key.example) {
            (Some(value), _) if all_commented => writeln!(out, "# {} = {value}", key.name),
            (Some(value), _) => writeln!(out, "{} = {value}", key.name),
            (None, example) => writeln!(out, "# {} = {}", key.name, example.unwrap_or("\"\"")),
        };
    }
}

/// `plan` as the shortest `waft.toml` that means it, without its notes.
pub fn to_toml(plan: &Plan) -> String {
    let mut out = String::new();
    if let Some(path) = &plan.routes_file {
        let _ = writeln!(out, "routes_file = {}", Value::String(path.display().to_string()));
    } else if plan.routes.is_empty() {
        out.push_str("route = []\n");
    }
    plan.each_section(&mut |section| {
        let mut heading = Some(section.name);
        for key in section.keys {
            let value = section.values.get(key.name);
            if let Some(value) = value.filter(|value| Some(*value) != section.defaults.get(key.name)) {
                if let Some(name) = heading.take() {
                    let _ = writeln!(out, "\n[{name}]");
                }
                let _ = writeln!(out, "{} = {value}", key.name);
            }
        }
    });
    if plan.routes_file.is_none() {
        let base = plan.base_options();
        for route in &plan.routes {
            out.push_str("\n[[route]]\n");
            entry(&mut out, RouteEntry::KEYS, &RouteEntry::from_route(route, &base), &RouteEntry::default());
        }
    }
    for realm in &plan.realms {
        out.push_str("\n[[realm]]\n");
        entry(&mut out, RealmEntry::KEYS, realm, &RealmEntry::default());
    }
    out.trim_start().to_owned()
}

/// The keys of a table that differ from the defaults.
fn entry<T: serde::Serialize>(out: &mut String, keys: &[Key], value: &T, default: &T) {
    let values = Table::try_from(value).unwrap_or_default();
    let defaults = Table::try_from(default).unwrap_or_default();
    for key in keys {
        let value = values.get(key.name).filter(|value| Some(*value) != defaults.get(key.name));
        if let Some(value) = value {
            let _ = writeln!(out, "{} = {value}", key.name);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::native::{Sources, load};

    fn read_as_plan(text: &str) -> Plan {
        let sources = Sources { file: Some("waft.toml".into()), ..Sources::default() };
        load(&sources, &|_| Ok(text.to_owned())).unwrap_or_else(|mistakes| panic!("{mistakes}\n{text}"))
    }

    #[test]
    fn the_printed_defaults_are_the_defaults() {
        assert_eq!(read_as_plan(&print_defaults()), Plan::default());
    }

    #[test]
    fn every_key_is_printed() {
        let text = print_defaults();
        let keys = |table: &Table| table.keys().cloned().collect::<BTreeSet<_>>();
        Plan::default().each_section(&mut |section| {
            let known: BTreeSet<_> = section.keys.iter().map(|key| key.name.to_owned()).collect();
            assert!(keys(&section.defaults).is_subset(&known), "[{}]", section.name);
            let part = text.split(&format!("\n[{}]\n", section.name)).nth(1).unwrap();
            let part = part.split("\n[").next().unwrap();
            for key in &known {
                assert!(
                    part.lines().any(|line| line.trim_start_matches("# ").starts_with(&format!("{key} = "))),
                    "{key}"
                );
            }
        });
    }

    #[test]
    fn the_commented_keys_can_be_used_as_they_stand() {
        let live: String = print_defaults()
            .lines()
            .filter(|line| !line.contains("routes_file"))
            .map(|line| match line.strip_prefix("# ") {
                Some(rest) if matches!(rest, "[[route]]" | "[[realm]]") || is_assignment(rest) => format!("{rest}\n"),
                _ => format!("{line}\n"),
            })
            // Every key as printed; a route needs a target in addition, and not a second host.
            .map(|line| if line == "targets = []\n" { "targets = [\"test\"]\n".to_owned() } else { line })
            .collect();
        let plan = read_as_plan(&live);
        assert_eq!(plan.routes.len(), 1);
        assert_eq!(&*plan.routes[0].id, "api");
        assert_eq!(plan.control.token.as_deref(), Some("a long random text"));
    }

    fn is_assignment(line: &str) -> bool {
        line.split_once(" = ").is_some_and(|(key, _)| key.bytes().all(|b| b.is_ascii_lowercase() || b == b'_'))
    }

    #[test]
    fn a_plan_is_written_and_read_alike() {
        for text in [
            "",
            "route = []",
            "[server]\nlisten = [\"8000\", \"[::1]:81\", \"unix:/run/w?mode=660&user=u\"]\nshards = 2",
            "[limits]\nidle_timeout = \"off\"\nqueue_bytes = \"3 MB\"\n[grip]\nsig_key = \"\"\n",
            "[[realm]]\nname = \"r\"\nkeys = [\"k\"]\naccess = [{ channels = [\"a\"], allow = [\"read\"] }]\nhold = \"5s\"\n\
             [[route]]\nrealm = \"r\"\nprefix = \"p-\"\n",
            "[defaults]\naco = true\n[[route]]\naco = false\nsig_key = \"x\"\ntargets = [\"a:80,sub=b\"]\n",
            "[[route]]\nhost = \"*.a.b\"\npath = \"/p\"\nid = \"i\"\nproto = \"ws\"\nssl = false\nmethods = [\"PUT\"]\n\
             match_headers = [\"X-A: 1\", \"X-B\"]\nmatch_query = [\"v=2\", \"w\"]\nheaders = [\"X-C: d e\", \"X-D:\"]\n\
             sockjs = \"/s\"\nsockjs_as_path = \"/t\"\njsonp_mode = \"basic\"\nresponse_head_timeout = \"1s\"\n\
             ping_interval = \"off\"\nping_mode = \"forward\"\ncompression = true\n\
             gap_message = \"m {channel}\"\ngap_close = 4001\nslow_client = \"drop\"\norigins = [\"https://a\"]\n\
             targets = [{ address = \"[::1]:80\", ssl = true, host = \"h\", ipc_file_mode = \"600\" }]\n",
        ] {
            let plan = read_as_plan(text);
            let written = to_toml(&plan);
            assert_eq!(read_as_plan(&written), plan, "{text}\nwritten as\n{written}");
        }
    }
}
