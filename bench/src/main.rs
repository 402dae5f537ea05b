//! Measures waft beside its peers and beside bare loops: CPU time for a unit of work, latency, and memory for a hold.
//!
//! `waft-bench run` does everything; `bench/run` builds and installs what it needs first.

mod bare;
mod histogram;
mod holds;
mod http;
mod message;
mod origin;
mod process;
mod report;
mod requests;
mod server;
mod suite;
mod webhooks;
mod wire;
mod ws;

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use server::{Kind, Setting};
use suite::Plan;

const USAGE: &str = "\
waft-bench run [OPTIONS]   measure
  --waft PATH              the waft binary (target/release/waft)
  --quick                  less work, one round, 1000 holds at most
  --rounds N               rounds of each workload, medians are shown (3)
  --servers A,B            of bare, waft, waft-2, pushpin, nginx, haproxy, node-ws (all)
  --workloads A,B          of delivery, proxy, poll, memory, ws-delivery, ws-echo, ws-memory,
                           tls-delivery, tls-memory (all)
  --holds N,M              numbers of holds (100,1000,10000)
  --nice N                 priority of load and servers, -10 keeps other work out (0)
  --node DIR               where ws-server.js and its node_modules are (bench/target/peers)
  --out FILE               write the page here
  --command TEXT           how this run was asked for, for the page
waft-bench webhooks [WAFT [DIR [MESSAGES]]]   measure webhooks (target/release/waft, bench/target/webhooks, 1000000)
waft-bench bare CLIENTS CONTROL TARGET   serve as the bare loop
";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let outcome = match arguments.first().map(String::as_str) {
        Some("run") => run(&arguments[1..]),
        Some("bare") => serve_bare(&arguments[1..]),
        Some("webhooks") => measure_webhooks(&arguments[1..]),
        _ => Err(USAGE.to_owned()),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(reason) => {
            eprintln!("{reason}");
            ExitCode::FAILURE
        }
    }
}

fn serve_bare(arguments: &[String]) -> Result<(), String> {
    raise_descriptors();
    let addresses: Result<Vec<SocketAddr>, _> = arguments.iter().map(|argument| argument.parse()).collect();
    match addresses.map_err(|error| format!("not an address: {error}"))?[..] {
        [clients, control, target] => {
            bare::run(clients, control, target).map_err(|error| format!("the bare loop ended: {error}"))
        }
        _ => Err(USAGE.to_owned()),
    }
}

fn measure_webhooks(arguments: &[String]) -> Result<(), String> {
    raise_descriptors();
    let path = |at: usize, default: &str| PathBuf::from(arguments.get(at).map_or(default, String::as_str));
    let queued = match arguments.get(2) {
        Some(text) => text.parse().map_err(|_| format!("{text}: not a number\n{USAGE}"))?,
        None => 1_000_000,
    };
    let plan = webhooks::Plan {
        waft: path(0, "target/release/waft"),
        dir: path(1, "bench/target/webhooks"),
        single: 2_000,
        queued,
    };
    println!("{}", webhooks::run(&plan)?);
    Ok(())
}

/// What was asked for on the command line.
struct Options {
    plan: Plan,
    waft: PathBuf,
    node: PathBuf,
    nice: i32,
    out: Option<PathBuf>,
    command: String,
}

fn options(arguments: &[String]) -> Result<Options, String> {
    let quick = arguments.iter().any(|argument| argument == "--quick");
    let mut own = Options {
        plan: Plan {
            servers: Kind::ALL.to_vec(),
            workloads: suite::WORKLOADS.iter().map(|name| (*name).to_owned()).collect(),
            rounds: if quick { 1 } else { 3 },
            holds: if quick { vec![1_000] } else { vec![100, 1_000, 10_000] },
            quick,
        },
        waft: PathBuf::from("target/release/waft"),
        node: PathBuf::from("bench/target/peers"),
        nice: 0,
        out: None,
        command: "bench/run".to_owned(),
    };
    let mut rest = arguments.iter();
    while let Some(option) = rest.next() {
        if option == "--quick" {
            continue;
        }
        let value = rest.next().ok_or_else(|| format!("{option} needs a value\n{USAGE}"))?;
        let number = |text: &str| text.parse::<usize>().map_err(|_| format!("{option} {text}: not a number"));
        match option.as_str() {
            "--waft" => own.waft = PathBuf::from(value),
            "--node" => own.node = PathBuf::from(value),
            "--nice" => own.nice = value.parse().map_err(|_| format!("--nice {value}: not a number"))?,
            "--out" => own.out = Some(PathBuf::from(value)),
            "--command" => own.command.clone_from(value),
            "--rounds" => own.plan.rounds = number(value)?.max(1),
            "--holds" => own.plan.holds = value.split(',').map(number).collect::<Result<_, _>>()?,
            "--servers" => {
                let kind = |name: &str| {
                    Kind::ALL.into_iter().find(|kind| kind.name() == name).ok_or(format!("no server is called {name}"))
                };
                own.plan.servers = value.split(',').map(kind).collect::<Result<_, _>>()?;
            }
            "--workloads" => {
                own.plan.workloads = value.split(',').map(str::to_owned).collect();
                if let Some(name) = own.plan.workloads.iter().find(|name| !suite::WORKLOADS.contains(&name.as_str())) {
                    return Err(format!("no workload is called {name}"));
                }
            }
            _ => return Err(format!("unknown option {option}\n{USAGE}")),
        }
    }
    Ok(own)
}

fn run(arguments: &[String]) -> Result<(), String> {
    let Options { mut plan, waft, node, nice, out, command } = options(arguments)?;
    raise_descriptors();
    let waft = waft.canonicalize().unwrap_or(waft);
    if !waft.exists() {
        eprintln!("{} does not exist: measuring the others", waft.display());
        plan.servers.retain(|kind| !matches!(kind, Kind::Waft | Kind::WaftTwo));
    }
    let node = node.canonicalize().unwrap_or(node);
    if !node.join("node_modules/ws").exists() {
        eprintln!("{} has no package ws: measuring without node-ws", node.display());
        plan.servers.retain(|kind| *kind != Kind::NodeWs);
    }
    rustix::process::nice(nice).map_err(|error| format!("cannot set priority {nice}: {error}"))?;
    // The load and the origin share a core; the servers have the other.
    let mut cores = rustix::thread::CpuSet::new();
    cores.set(server::LOAD_CORE);
    rustix::thread::sched_setaffinity(None, &cores)
        .map_err(|error| format!("cannot bind to core {}, two cores are needed: {error}", server::LOAD_CORE))?;
    let dir = std::env::temp_dir().join(format!("waft-bench-{}", std::process::id()));
    std::fs::create_dir_all(&dir).map_err(|error| format!("cannot create {}: {error}", dir.display()))?;
    let origin = origin::Origin::start().map_err(|error| format!("cannot start the origin: {error}"))?;
    let setting = Setting { waft, node, dir: dir.clone(), origin: origin.address };
    let mut page = introduction(&plan, &setting, &command);
    println!("{page}");
    suite::run(&plan, &setting, &origin, &mut |table| {
        let text = table.markdown();
        println!("{text}");
        let _ = writeln!(page, "{text}");
    });
    let _ = std::fs::remove_dir_all(&dir);
    if let Some(out) = out {
        if let Some(parent) = out.parent() {
            std::fs::create_dir_all(parent).map_err(|error| format!("cannot create {}: {error}", parent.display()))?;
        }
        std::fs::write(&out, page).map_err(|error| format!("cannot write {}: {error}", out.display()))?;
    }
    Ok(())
}

/// As many descriptors as this process may have; the servers inherit it.
fn raise_descriptors() {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    let _ = setrlimit(Resource::Nofile, limit);
}

/// The head of the page: what is measured, how, where.
fn introduction(plan: &Plan, setting: &Setting, command: &str) -> String {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let cpuinfo = read("/proc/cpuinfo");
    let field = |name: &str| {
        cpuinfo
            .lines()
            .find_map(|line| line.strip_prefix(name)?.split(':').nth(1))
            .unwrap_or("unknown")
            .trim()
            .to_owned()
    };
    let memory_kb: u64 = read("/proc/meminfo")
        .lines()
        .find_map(|line| line.strip_prefix("MemTotal:")?.split_whitespace().next()?.parse().ok())
        .unwrap_or(0);
    let kernel = read("/proc/sys/kernel/osrelease");
    let system = read("/etc/os-release");
    let system =
        system.lines().find_map(|line| line.strip_prefix("PRETTY_NAME=")).unwrap_or("unknown").trim_matches('"');
    let cores = std::thread::available_parallelism()
        .map_or(0, std::num::NonZero::get)
        .max(cpuinfo.matches("processor").count());
    let mut out = format!(
        "# Benchmarks\n\n\
         Written by `{command}`.\n\n\
         All servers run one after the other on the same machine, workload by workload and round by round; figures are medians of {} rounds.\n\n\
         - **CPU us** is the processor time of all processes of the server, from the scheduler, divided by the units of work.\n\
         It holds on a busy machine better than rates and latencies do.\n\
         - **bare** is the least that does the work: one epoll loop without limits, timers or queues (`bench/src/bare.rs`).\n\
         **x bare** is a server's cost over it, **waft / it** is waft's cost over the server's: below 1, waft is cheaper.\n\
         - Latencies are those of each delivery or request; **last** is the last receiver of each message. They include the\n\
         time that the load generator needs to read.\n\
         - The server has core {} and the load generator with the origin core {}, over loopback. The load checks every byte and\n\
         that each listener got each message once; a workload that lost messages shows no figure but the reason.\n\
         - Memory is proportional set size (PSS) with all holds open and idle, less that before, per hold.\n\n\
         Machine: {} ({} cores), {:.0} GB memory, Linux {}, {}.\n\n",
        plan.rounds,
        server::SERVER_CORE,
        server::LOAD_CORE,
        field("model name"),
        cores,
        memory_kb as f64 / 1_048_576.0,
        kernel.trim(),
        system,
    );
    out.push_str("Servers:\n\n");
    for kind in plan.servers.iter().filter(|kind| kind.is_single()) {
        let _ = writeln!(out, "- {}: {}", kind.name(), kind.version(setting));
    }
    out
}
