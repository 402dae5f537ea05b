//! The chat in `examples/chat`, with the configuration in `examples/push-service`.

use waft_testkit::{Process, Server, Setup, node, workspace_root};

fn join(server: &Server, name: &str) -> Process {
    let client = node("examples/chat/chat.mjs")
        .arg(name)
        .env("BAYEUX", format!("http://{}/bayeux", server.address()))
        .start_listening();
    client.wait_for_output("in lobby", 1);
    client
}

#[test]
fn what_one_says_all_in_the_room_hear() {
    let example = std::fs::read_to_string(workspace_root().join("examples/push-service/waft.toml")).unwrap();
    let listen = "[server]\nlisten = [\"FRONT\"]\n[control]\nlisten = [\"CONTROL\"]\n";
    let server = Server::start(Setup::native(format!("{listen}{example}")));
    let (mut ann, mut bob) = (join(&server, "ann"), join(&server, "bob"));
    ann.say("hello");
    for client in [&ann, &bob] {
        client.wait_for_output("ann: hello\n", 1);
    }
    bob.say("hi there");
    ann.wait_for_output("bob: hi there\n", 1);
}
