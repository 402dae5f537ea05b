//! What was acknowledged arrives, whenever the process is killed.

use std::collections::HashMap;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::{Value, json};
use waft_testkit::{Process, free_port, waft};

use crate::receivers::python_receiver;
use crate::{Queue, SECRET};

/// How often the process is killed, unless WAFT_TEST_KILLS says more.
const KILLS: u32 = 10;

/// Programs that submit at the same time.
const SUBMITTERS: usize = 4;

fn start(config: &std::path::Path) -> Process {
    let process = waft().arg("--config").arg(config).start();
    process.wait_for_output("waft is ready", 1);
    process
}

/// Submits one message on a connection of its own; its id, if it was acknowledged.
fn submit(control: SocketAddr, number: u32) -> io::Result<String> {
    let mut stream = TcpStream::connect(control)?;
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    let padding = "x".repeat(number as usize * 131 % 2_000);
    let body = json!({ "type": "crash.test", "payload": { "n": number, "padding": padding } }).to_string();
    let head = "POST /webhooks/messages HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length:";
    stream.write_all(format!("{head} {}\r\n\r\n{body}", body.len()).as_bytes())?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let text = answer.split_once("\r\n\r\n").filter(|_| answer.starts_with("HTTP/1.1 202")).map(|(_, body)| body);
    let value: Value = serde_json::from_str(text.ok_or(io::ErrorKind::InvalidData)?)?;
    Ok(value["id"].as_str().ok_or(io::ErrorKind::InvalidData)?.to_owned())
}

/// The numbers that a receiver has told of, by id.
fn received(output: &str) -> HashMap<String, u64> {
    let lines = output.lines().filter_map(|line| line.strip_prefix("received "));
    lines
        .map(|line| {
            let (id, body) = line.split_once(' ').unwrap();
            let body: Value = serde_json::from_str(body).unwrap();
            let n = body["n"].as_u64().unwrap();
            assert_eq!(body["padding"].as_str().unwrap().len() as u64, n * 131 % 2_000, "{id} has another body");
            (id.to_owned(), n)
        })
        .collect()
}

#[test]
fn nothing_acknowledged_is_lost_when_the_process_is_killed() {
    let kills = std::env::var("WAFT_TEST_KILLS").ok().map_or(KILLS, |kills| kills.parse().unwrap());
    let (receiver, port) = python_receiver(SECRET);
    let queue = Queue::new();
    let control: SocketAddr = ([127, 0, 0, 1], free_port()).into();
    let front = free_port();
    let more = format!(
        "retry = [\"0s\", \"100ms\", \"100ms\", \"1s\", \"1s\", \"5s\", \"5s\", \"5s\", \"5s\"]\n\
         [[webhooks.endpoints]]\nid = \"ep\"\nurl = \"http://127.0.0.1:{port}/\"\nsecrets = [\"{SECRET}\"]\nconcurrency_max = 4"
    );
    let text = queue.toml(&more).replace("FRONT", &format!("127.0.0.1:{front}"));
    std::fs::create_dir_all(&queue.0).unwrap();
    let config = queue.0.join("waft.toml");
    std::fs::write(&config, text.replace("CONTROL", &control.to_string())).unwrap();

    let acknowledged: Arc<Mutex<HashMap<String, u64>>> = Arc::default();
    let (next, stop) = (Arc::new(AtomicU32::new(0)), Arc::new(AtomicBool::new(false)));
    let submitters: Vec<_> = (0..SUBMITTERS)
        .map(|_| {
            let (acknowledged, next, stop) = (Arc::clone(&acknowledged), Arc::clone(&next), Arc::clone(&stop));
            std::thread::spawn(move || {
                while !stop.load(Ordering::Relaxed) {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    match submit(control, number) {
                        Ok(id) => drop(acknowledged.lock().unwrap().insert(id, number.into())),
                        // The process was killed; the next one listens soon.
                        Err(_) => std::thread::yield_now(),
                    }
                }
            })
        })
        .collect();
    let (mut torn, mut wait) = (0, 17);
    for _ in 0..kills {
        let server = start(&config);
        let before = acknowledged.lock().unwrap().len();
        let begun = Instant::now();
        // At another moment each time, and not before something was acknowledged.
        wait = wait * 29 % 211;
        while acknowledged.lock().unwrap().len() <= before || begun.elapsed() < Duration::from_millis(wait) {
            assert!(begun.elapsed() < Duration::from_secs(20), "nothing is acknowledged:\n{}", server.output());
            std::thread::yield_now();
        }
        server.signal(Signal::KILL);
        torn += server.output().matches("Cut off a torn end").count();
    }
    stop.store(true, Ordering::Relaxed);
    submitters.into_iter().for_each(|submitter| submitter.join().unwrap());
    let server = start(&config);
    let acknowledged = acknowledged.lock().unwrap().clone();
    let give_up = Instant::now() + Duration::from_secs(60) + Duration::from_millis(100) * kills;
    loop {
        let received = received(&receiver.output());
        let missing: Vec<_> = acknowledged.iter().filter(|(id, n)| received.get(*id) != Some(n)).collect();
        if missing.is_empty() {
            break;
        }
        assert!(
            Instant::now() < give_up,
            "{} of {} are lost, such as {:?}",
            missing.len(),
            acknowledged.len(),
            missing[0]
        );
        // Parsing all of it again is work enough to be done now and then only.
        std::thread::park_timeout(Duration::from_millis(200));
    }
    let output = receiver.output();
    assert!(!output.contains("refused"), "a signature was wrong");
    let again = output.lines().filter(|line| line.starts_with("again")).count();
    eprintln!("{kills} kills, {} acknowledged, {again} delivered again, {torn} torn ends", acknowledged.len());
    assert!(acknowledged.len() >= kills as usize);
    drop(server);
}

#[test]
fn a_torn_end_is_repaired_with_a_line_in_the_log() {
    let queue = Queue::new();
    let hooks = queue.serve("");
    hooks.endpoint("http://127.0.0.1:1/", json!({}));
    let id = hooks.send("a", json!({ "kept": true }));
    hooks.0.signal(Signal::KILL);
    drop(hooks);
    let segment = queue.last_segment();
    let whole = std::fs::read(&segment).unwrap();
    std::fs::write(&segment, [&whole[..], &whole[20..50]].concat()).unwrap();
    let hooks = queue.serve("");
    hooks.0.wait_for_log("Cut off a torn end");
    let message = hooks.must("GET", &format!("messages/{id}"), &Value::Null);
    assert_eq!(message["payload"], json!({ "kept": true }));
}
