use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Instant;

use rustix::process::{Pid, Signal, kill_process, kill_process_group};

use crate::{DEADLINE, eventually};

/// A running program whose output is kept, and which is killed with all its children when dropped.
#[derive(Debug)]
pub struct Process {
    name: String,
    child: Child,
    output: Arc<Output>,
    readers: Vec<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct Output {
    text: Mutex<String>,
    grew: Condvar,
}

impl Process {
    /// Starts a program in a process group of its own.
    pub fn start(name: &str, command: &mut Command) -> Self {
        Self::start_with(name, command, Stdio::null())
    }

    /// The same, and lines can be said to it.
    pub(crate) fn start_listening(name: &str, command: &mut Command) -> Self {
        Self::start_with(name, command, Stdio::piped())
    }

    fn start_with(name: &str, command: &mut Command, input: Stdio) -> Self {
        let command = command.stdin(input).stdout(Stdio::piped()).stderr(Stdio::piped()).process_group(0);
        let mut child = command.spawn().unwrap_or_else(|error| panic!("cannot start {command:?}: {error}"));
        let output = Arc::new(Output::default());
        let readers =
            vec![collect(child.stdout.take().unwrap(), &output), collect(child.stderr.take().unwrap(), &output)];
        Self { name: name.to_owned(), child, output, readers }
    }

    /// The process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Says a line to a program that was started to listen.
    pub fn say(&mut self, line: &str) {
        let input = self.child.stdin.as_mut().unwrap_or_else(|| panic!("{} does not listen", self.name));
        writeln!(input, "{line}").unwrap();
        input.flush().unwrap();
    }

    /// What it wrote to stdout and stderr so far.
    pub fn output(&self) -> String {
        self.output.text.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Everything it wrote, once it and its children have closed their output.
    pub(crate) fn output_at_end(&mut self) -> String {
        let _ = kill_process_group(self.pid(), Signal::KILL);
        for reader in self.readers.drain(..) {
            let _ = reader.join();
        }
        self.output()
    }

    /// Waits until the output holds `text` at least `count` times.
    pub fn wait_for_output(&self, text: &str, count: usize) {
        let give_up = Instant::now() + DEADLINE;
        let mut output = self.output.text.lock().unwrap_or_else(PoisonError::into_inner);
        while output.matches(text).count() < count {
            let left = give_up.saturating_duration_since(Instant::now());
            assert!(!left.is_zero(), "{} never said {text:?} {count} times; it said:\n{output}", self.name);
            output = self.output.grew.wait_timeout(output, left).unwrap().0;
        }
    }

    /// Whether it has ended.
    pub fn has_ended(&mut self) -> bool {
        self.child.try_wait().unwrap().is_some()
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: Signal) {
        kill_process(self.pid(), signal).unwrap();
    }

    /// Waits for it to end.
    pub fn wait_for_exit(&mut self) -> ExitStatus {
        let name = self.name.clone();
        eventually(&format!("the end of {name}"), || self.child.try_wait().unwrap())
    }

    fn pid(&self) -> Pid {
        Pid::from_child(&self.child)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended by itself; what matters is that nothing of it stays.
        let _ = kill_process_group(self.pid(), Signal::KILL);
        let _ = self.child.wait();
        if thread::panicking() {
            eprintln!("---- {} said ----\n{}----", self.name, self.output());
        }
    }
}

/// Memory of a process that is in RAM and its own (file mappings left out), in bytes.
pub fn resident_bytes(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find(|line| line.starts_with("RssAnon:")).unwrap();
    let kilobytes: u64 = line.split_whitespace().nth(1).unwrap().parse().unwrap();
    kilobytes * 1024
}

/// How many file descriptors a process has open.
pub fn descriptors(pid: u32) -> usize {
    fs::read_dir(format!("/proc/{pid}/fd")).unwrap().count()
}

fn collect(pipe: impl Read + Send + 'static, output: &Arc<Output>) -> JoinHandle<()> {
    let output = Arc::clone(output);
    thread::spawn(move || {
        let mut reader = BufReader::new(pipe);
        let mut line = Vec::new();
        while reader.read_until(b'\n', &mut line).is_ok_and(|count| count > 0) {
            output.text.lock().unwrap().push_str(&String::from_utf8_lossy(&line));
            output.grew.notify_all();
            line.clear();
        }
    })
}
