//! The door as its clients see it: pyzmq, that is libzmq, drives the program. The cases are in
//! `tests/zurl`, where they can be run against Debian's zurl too.

use std::path::Path;
use std::process::Command;

#[test]
fn workers_with_libzmq_get_what_zurl_gave_them() {
    let program = std::env::current_exe().unwrap();
    let program = program.parent().and_then(Path::parent).unwrap().join("examples/egress");
    assert!(program.exists(), "{} is not built; cargo builds examples for tests", program.display());
    let suite = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/zurl/suite.sh");
    let output = Command::new(suite).arg("--daemon").arg(program).output().unwrap();
    let report = String::from_utf8_lossy(&output.stdout);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{report}\n{errors}");
    assert!(report.contains(" passed, 0 failed, 0 left out"), "{report}");
}
