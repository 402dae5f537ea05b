//! One log, many views: clients of every kind come and go, and each sees the same sequence.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use waft_testkit::{Connection, Server, WebSocket};

use crate::{events, get, publish, serve};

/// A choice that is the same in each run with the same seed.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % sides
    }
}

/// How a reader reads for now.
enum Transport {
    Events(Connection),
    Lines(Connection),
    Socket(WebSocket),
}

/// A reader that changes its transport and keeps its position.
struct Reader {
    position: Option<String>,
    transport: Option<Transport>,
    seen: Vec<u64>,
    was_told_of_a_gap: bool,
}

impl Reader {
    fn join(&mut self, server: &Server, kind: u64) {
        let since = self.position.clone().unwrap_or_else(|| "start".to_owned());
        let path = format!("/open/log?since={since}");
        self.transport = Some(match kind {
            0 => Transport::Events(events(server, &path, "")),
            1 => {
                let mut lines = get(server, &path, "Accept: application/x-ndjson\r\n");
                lines.expect_head(200);
                Transport::Lines(lines)
            }
            _ => {
                let mut socket = WebSocket::open(server.connect(), &path, "");
                let begun: Value = serde_json::from_slice(&socket.message().1).unwrap();
                assert_eq!(begun["type"], "subscribed");
                Transport::Socket(socket)
            }
        });
    }

    /// Reads until it has seen so much, or is told of a gap.
    fn read_to(&mut self, last: u64) {
        while self.seen.last() != Some(&last) {
            let (id, value) = match self.transport.as_mut().unwrap() {
                Transport::Events(stream) => {
                    let text = stream.stream_until("\n\n");
                    self.was_told_of_a_gap |= text.starts_with("event: gap");
                    let part = |name: &str| text.lines().find_map(|line| line.strip_prefix(name)).map(str::to_owned);
                    let Some(id) = part("id: ") else { continue };
                    (id, serde_json::from_str(&part("data: ").unwrap()).unwrap())
                }
                Transport::Lines(lines) => entry(&serde_json::from_str(&lines.stream_until("\n")).unwrap()),
                Transport::Socket(socket) => entry(&serde_json::from_slice(&socket.message().1).unwrap()),
            };
            if let Some(number) = Value::as_u64(&value) {
                self.seen.push(number);
                self.position = Some(id);
            }
        }
    }

    /// What came since its position, by a single request.
    fn poll(&mut self, server: &Server) {
        let Some(position) = self.position.clone() else { return };
        let answer = get(server, &format!("/open/log?since={position}"), "").response();
        let body: Value = serde_json::from_slice(&answer.body).unwrap();
        for item in body["items"].as_array().unwrap() {
            self.seen.push(item["data"].as_u64().unwrap());
        }
        self.position = Some(body["last_cursor"].as_str().unwrap().to_owned());
    }
}

fn entry(message: &Value) -> (String, Value) {
    (message["id"].as_str().unwrap_or_default().to_owned(), message["data"].clone())
}

/// A Bayeux client by long-polls, raw, with acknowledgements; some replies are thrown away as if they were lost.
struct Comet {
    id: String,
    ack: u64,
    seen: Vec<u64>,
}

impl Comet {
    fn call(server: &Server, batch: &Value) -> Value {
        let body = batch.to_string();
        let answer = server.fetch(format!(
            "POST /bayeux HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        ));
        serde_json::from_slice(&answer.body).unwrap()
    }

    fn join(server: &Server) -> Self {
        let answer = Self::call(
            server,
            &json!([{ "channel": "/meta/handshake", "version": "1.0", "supportedConnectionTypes": ["long-polling"], "ext": { "ack": true } }]),
        );
        let id = answer[0]["clientId"].as_str().unwrap().to_owned();
        Self::call(server, &json!([{ "channel": "/meta/subscribe", "clientId": id, "subscription": "/open/*" }]));
        Self { id, ack: 0, seen: Vec::new() }
    }

    fn connect(&mut self, server: &Server, is_lost: bool) {
        let connect = json!([{
            "channel": "/meta/connect", "clientId": self.id, "connectionType": "long-polling",
            "ext": { "ack": self.ack }, "advice": { "timeout": 0 },
        }]);
        let answer = Self::call(server, &connect);
        if is_lost {
            return;
        }
        for message in answer.as_array().unwrap() {
            match message["channel"].as_str() {
                Some("/meta/connect") => self.ack = message["ext"]["ack"].as_u64().unwrap(),
                _ => self.seen.push(message["data"].as_u64().unwrap()),
            }
        }
    }
}

fn check(seed: u64) {
    let server = serve();
    let mut dice = Dice(seed);
    let mut readers: BTreeMap<u64, Reader> = BTreeMap::new();
    for name in 0..4 {
        readers.insert(name, Reader { position: None, transport: None, seen: Vec::new(), was_told_of_a_gap: false });
    }
    let mut comet = Comet::join(&server);
    let mut published = 0;
    for _step in 0..60 {
        match dice.roll(5) {
            0 | 1 => {
                // The log keeps a hundred: everybody who comes back in time has them all.
                if published < 95 {
                    publish(&server, "open/log", &json!(published));
                    published += 1;
                }
            }
            2 => {
                let (kind, name) = (dice.roll(3), dice.roll(4));
                let reader = readers.get_mut(&name).unwrap();
                if reader.transport.is_none() {
                    reader.join(&server, kind);
                }
            }
            3 => {
                let reader = readers.get_mut(&dice.roll(4)).unwrap();
                if reader.transport.is_some() && published > 0 {
                    reader.read_to(published - 1);
                }
                reader.transport = None;
                reader.poll(&server);
            }
            _ => comet.connect(&server, dice.roll(3) == 0),
        }
    }
    publish(&server, "open/log", &json!(published));
    let expected: Vec<u64> = (0..=published).collect();
    for (name, reader) in &mut readers {
        if reader.transport.is_none() {
            reader.join(&server, name % 3);
        }
        reader.read_to(published);
        assert!(!reader.was_told_of_a_gap);
        assert_eq!(reader.seen, expected, "reader {name} with seed {seed}");
    }
    comet.connect(&server, false);
    assert_eq!(comet.seen, expected, "Bayeux with seed {seed}");
}

#[test]
fn readers_of_every_kind_come_and_go_and_see_one_sequence() {
    for seed in [1, 7, 42, 1_234_567] {
        check(seed);
    }
}
