use std::time::{Duration, Instant};

use serde_json::json;
use waft_testkit::{Connection, Reply, Server, Setup, Target, descriptors, eventually, waft_only};

/// How many clients make the crowd: 18,000 where a process may have 20,000 descriptors, the clients being in one
/// process, and fewer where it may have fewer.
fn crowd_size() -> usize {
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile).current.unwrap_or(20_000);
    usize::try_from(limit).unwrap().saturating_sub(2_000).min(18_000)
}

/// Waits until the server has no more descriptors than it had before, but for some pooled connections to the target.
fn wait_until_forgotten(server: &Server, before: usize) {
    eventually("all descriptors are given back", || (descriptors(server.id()) <= before + 10).then_some(()));
}

fn serve() -> (Target, Server) {
    let target = Target::start(|_| Reply::hold("stream", "c").body("open\n"));
    let server = Server::start(Setup::to(&target));
    (target, server)
}

/// Requests under way at a time.
const WAVE: usize = 200;

/// Connections to the target that may stay open for a while: each shard keeps as many as a wave needed of it.
fn pooled() -> usize {
    WAVE * std::thread::available_parallelism().map_or(1, usize::from)
}

/// Connects all, with some requests under way at a time as a crowd has.
fn gather(server: &Server, count: usize) -> Vec<Connection> {
    let mut clients = Vec::with_capacity(count);
    while clients.len() < count {
        let many = WAVE.min(count - clients.len());
        let mut wave: Vec<_> = (0..many).map(|_| server.get("/stream")).collect();
        for client in &mut wave {
            client.expect_head(200);
            client.expect_stream("open\n");
        }
        clients.append(&mut wave);
    }
    clients
}

#[test]
fn a_crowd_is_held_served_and_forgotten_and_comes_back() {
    waft_only!("Pushpin delivers 2,500 items a second");
    let (_target, server) = serve();
    let crowd = crowd_size();
    let idle = descriptors(server.id());
    drop(gather(&server, 500));
    wait_until_forgotten(&server, idle + pooled());
    let before = server.resident_bytes();
    let mut clients = gather(&server, crowd);
    let held = server.resident_bytes();
    let start = Instant::now();
    server.publish(json!([{ "channel": "c", "http-stream": { "content": "to all\n" } }]));
    for client in &mut clients {
        client.expect_stream("to all\n");
    }
    let took = start.elapsed();
    assert!(took < Duration::from_secs(15), "{crowd} deliveries took {took:?}");
    drop(clients);
    wait_until_forgotten(&server, idle + pooled());
    let growth = held.saturating_sub(before) / crowd as u64;
    assert!(growth < 8_192, "{growth} bytes a hold");
    // What the crowd cost is given back in the seconds after it has left. The allocator of this build, which is not
    // optimised, keeps some megabytes for each shard; the benchmark of memory measures what stays in a release build.
    let bound = before + before / 10 + (16 << 20);
    eventually("the memory of the crowd is given back", || (server.resident_bytes() < bound).then_some(()));
    // All come back at once, and nobody is left out.
    let mut clients = gather(&server, crowd);
    server.publish(json!([{ "channel": "c", "http-stream": { "content": "again\n" } }]));
    for client in &mut clients {
        client.expect_stream("again\n");
    }
}

#[test]
fn a_crowd_that_comes_delays_no_delivery_to_those_who_are_there() {
    waft_only!("Pushpin handles one thing after the other");
    let (_target, server) = serve();
    let mut client = gather(&server, 1).remove(0);
    std::thread::scope(|scope| {
        let crowd = scope.spawn(|| gather(&server, 1_000));
        let mut slowest = Duration::ZERO;
        let mut count = 0;
        while !crowd.is_finished() {
            let text = format!("{count}\n");
            let start = Instant::now();
            server.publish(json!([{ "channel": "c", "http-stream": { "content": &text } }]));
            client.expect_stream(&text);
            slowest = slowest.max(start.elapsed());
            count += 1;
        }
        assert!(slowest < Duration::from_millis(1_000), "the slowest of {count} took {slowest:?}");
        crowd.join().unwrap();
    });
}
