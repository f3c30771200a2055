//! A step reaches other machines as far as it may, and never this one.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, UdpSocket};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use portolan_builder::exec::network::{Gate, Policy, probe};
use portolan_builder::exec::{DefaultNetwork, Network};
use portolan_builder::{Cancel, StepLimits};

use crate::support::{Lab, step};

/// Another machine: a network namespace at the end of a cable, with a web server.
struct Machine {
    child: Child,
    cable: String,
    /// This machine's address on the cable.
    here: Ipv4Addr,
    there: Ipv4Addr,
    _dir: tempfile::TempDir,
}

fn ip(args: &str) {
    let output = Command::new("ip").args(args.split(' ')).output().unwrap();
    assert!(output.status.success(), "ip {args}: {}", String::from_utf8_lossy(&output.stderr));
}

impl Machine {
    fn new(number: u8) -> Machine {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("index.html"), "from another machine\n").unwrap();
        std::fs::write(dir.path().join("large"), vec![b'x'; 20_000_000]).unwrap();
        let pid = (std::process::id() % 250) as u8;
        let (here, there) = (Ipv4Addr::new(10, number, pid, 1), Ipv4Addr::new(10, number, pid, 2));
        let cable = format!("pt{number}x{}", std::process::id() % 1_000_000);
        let script = format!(
            "ip link set lo up; until ip link show {cable}b >/dev/null 2>&1; do :; done; ip addr add {there}/30 dev {cable}b; \
             ip link set {cable}b up; exec busybox httpd -f -p 80 -h {}",
            dir.path().display()
        );
        let child = Command::new("unshare").args(["-n", "sh", "-c", &script]).spawn().unwrap();
        let machine = Machine { child, cable: cable.clone(), here, there, _dir: dir };
        // It is in its own network once it is another than ours.
        let own = std::fs::read_link("/proc/self/ns/net").unwrap();
        let theirs = format!("/proc/{}/ns/net", machine.child.id());
        wait(|| std::fs::read_link(&theirs).is_ok_and(|ns| ns != own));
        ip(&format!("link add {cable}a type veth peer name {cable}b netns {}", machine.child.id()));
        ip(&format!("addr add {here}/30 dev {cable}a"));
        ip(&format!("link set {cable}a up"));
        wait(|| std::net::TcpStream::connect_timeout(&(there, 80).into(), Duration::from_millis(200)).is_ok());
        machine
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        let _ = Command::new("ip").args(["link", "del", &format!("{}a", self.cable)]).stderr(Stdio::null()).status();
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub(super) fn wait(mut done: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(30);
    while !done() {
        assert!(Instant::now() < deadline, "nothing came of it in 30 s");
        std::thread::yield_now();
    }
}

/// A name server that knows one name. Returns where it is.
fn name_server(name: &'static str, ip: Ipv4Addr) -> (SocketAddr, Arc<AtomicBool>) {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let at = socket.local_addr().unwrap();
    let asked_other = Arc::new(AtomicBool::new(false));
    let told = asked_other.clone();
    std::thread::spawn(move || {
        let mut buffer = [0u8; 1500];
        while let Ok((n, from)) = socket.recv_from(&mut buffer) {
            let query = &buffer[..n];
            let mut asked = Vec::new();
            let mut at = 12;
            while query[at] != 0 {
                asked.push(String::from_utf8_lossy(&query[at + 1..at + 1 + query[at] as usize]).into_owned());
                at += 1 + query[at] as usize;
            }
            let end = at + 5;
            let mut reply = query[..end].to_vec();
            (reply[2], reply[3]) = (0x81, 0x80);
            reply[6..12].fill(0);
            if asked.join(".") != name {
                told.store(true, Ordering::SeqCst);
                reply[3] = 0x83;
            } else if query[at + 2] == 1 {
                reply[7] = 1;
                reply.extend_from_slice(&[0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 9, 0, 4]);
                reply.extend_from_slice(&ip.octets());
            }
            let _ = socket.send_to(&reply, from);
        }
    });
    (at, asked_other)
}

fn policy(allow: &str, deny: &str) -> Policy {
    let rules = |text: &str| text.split_whitespace().map(|rule| rule.parse().unwrap()).collect();
    Policy { allow: rules(allow), deny: rules(deny), ..Policy::default() }
}

fn lab(policy: Policy) -> Lab {
    probe().expect("this kernel gives steps networks of their own");
    let mut lab = Lab::new();
    lab.config.network = DefaultNetwork::Own(Arc::new(policy));
    lab
}

/// `get ADDRESS PORT PATH` prints what a web server says, and `ip_of NAME` what a name server
/// does: a busybox linked statically looks up no names itself.
const TOOLS: &str = r#"
get() { printf 'GET %s HTTP/1.0\r\n\r\n' "$3" | busybox nc -w 5 $1 $2 >/tmp/got && grep -q '^HTTP/1' /tmp/got && sed '1,/^.$/d' /tmp/got; }
ip_of() { nslookup $1 2>/dev/null | awk '/^Name/ { seen = 1 } /^Address/ && seen { print $2; exit }'; }
"#;

/// What a script prints in a network of its own, or in the host's.
fn sh(lab: &Lab, network: Network, script: &str) -> (i32, String) {
    let active = lab.begin();
    let script = &format!("{TOOLS}{script}");
    let mut spec = step(active.root(), script);
    spec.network = network;
    spec.limits = StepLimits { secs_max: Some(60), ..StepLimits::default() };
    let (exit, output) = lab.run(&spec, &Cancel::new());
    (exit.unwrap().code, output)
}

/// A server on this machine, at `ip`, that says hello; where it is.
fn hello(ip: Ipv4Addr) -> SocketAddr {
    let listener = TcpListener::bind((ip, 0)).unwrap();
    let at = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for client in listener.incoming() {
            let Ok(mut client) = client else { return };
            std::thread::spawn(move || {
                let _ = client.read(&mut [0; 1000]);
                let _ = client.write_all(b"HTTP/1.0 200 OK\r\n\r\nhello from the host\n");
            });
        }
    });
    at
}

#[test]
fn other_machines_are_reached_by_address_and_by_name() {
    let machine = Machine::new(231);
    let (names, _) = name_server("far.test", machine.there);
    let lab = lab(Policy { name_servers: vec![names], ..policy("", "host metadata") });
    let (code, output) = sh(
        &lab,
        Network::Default,
        &format!(
            "cat /etc/resolv.conf | head -1; get {} 80 /; get $(ip_of far.test) 80 /; \
             get $(ip_of far.test) 80 /large | wc -c; grep -c : /proc/net/dev",
            machine.there
        ),
    );
    assert_eq!(
        (code, output.as_str()),
        (0, "nameserver 127.0.0.11\nfrom another machine\nfrom another machine\n20000000\n1\n")
    );
    // The step's own servers are its own, on any port, whoever it is.
    let (_, output) = sh(
        &lab,
        Network::Default,
        "mkdir /www; echo own > /www/index.html; busybox httpd -p 80 -h /www && get 127.0.0.1 80 / && get 198.51.100.2 80 /",
    );
    assert_eq!(output, "own\nown\n");
}

#[test]
fn what_was_sent_before_hanging_up_arrives_whole() {
    let machine = Machine::new(236);
    let lab = lab(policy("", "host"));
    // A slow reader, so that all but the last of it waits when the other side is gone.
    let script = format!(
        "for i in 1 2 3 4; do printf 'GET /large HTTP/1.0\\r\\n\\r\\n' | busybox nc {0} 80 | (sleep 0.3; wc -c); done",
        machine.there
    );
    let (_, output) = sh(&lab, Network::Default, &script);
    let counts: Vec<u64> = output.lines().map(|line| line.trim().parse().unwrap()).collect();
    assert!(counts.len() == 4 && counts.iter().all(|n| *n > 20_000_000 && *n == counts[0]), "{output}");
}

#[test]
fn this_machine_and_its_metadata_are_not_reached() {
    let machine = Machine::new(232);
    let lab = lab(policy("", "host metadata"));
    let script = |to: SocketAddr| format!("get {} {} / || echo refused", to.ip(), to.port());
    // On its address, on its loopback, and on what some take for its loopback.
    let at = hello(machine.here);
    assert_eq!(
        sh(&lab, Network::Host, &script(at)).1,
        "hello from the host\n",
        "the attack works without the protection"
    );
    let (_, output) = sh(&lab, Network::Default, &script(at));
    assert!(output.contains("refused") && !output.contains("hello"), "{output}");
    assert!(
        output.contains(&format!("[network] no connection to {at}: builds may not reach it here (host)\n")),
        "{output}"
    );
    let at = hello(Ipv4Addr::LOCALHOST);
    assert_eq!(
        sh(&lab, Network::Host, &script(at)).1,
        "hello from the host\n",
        "the attack works without the protection"
    );
    for ip in [Ipv4Addr::LOCALHOST, Ipv4Addr::UNSPECIFIED, Ipv4Addr::new(127, 0, 0, 11)] {
        let (_, output) = sh(&lab, Network::Default, &script((ip, at.port()).into()));
        assert!(output.contains("refused") && !output.contains("hello"), "{ip}: {output}");
    }
    // The relay itself, spoken to directly, leads nowhere.
    let (_, output) = sh(
        &lab,
        Network::Default,
        "for port in $(awk 'NR > 1 { split($2, a, \":\"); print a[2] }' /proc/net/tcp); do get 127.0.0.1 $((0x$port)) / && echo THROUGH; done; echo done",
    );
    assert!(output.contains("done") && !output.contains("THROUGH"), "{output}");
    let (_, output) = sh(&lab, Network::Default, &script("169.254.169.254:80".parse().unwrap()));
    assert!(output.contains("builds may not reach it here (metadata)"), "{output}");
    // Its abstract sockets.
    let name = format!("portolan-test-{}", std::process::id());
    let address =
        <std::os::unix::net::SocketAddr as std::os::linux::net::SocketAddrExt>::from_abstract_name(&name).unwrap();
    let _listener = std::os::unix::net::UnixListener::bind_addr(&address).unwrap();
    let script = format!("grep -c {name} /proc/net/unix");
    assert_eq!(sh(&lab, Network::Host, &script).1, "1\n");
    assert_eq!(sh(&lab, Network::Default, &script).1, "0\n");
}

#[test]
fn a_name_that_leads_to_this_machine_opens_nothing() {
    let machine = Machine::new(233);
    let at = hello(machine.here);
    let (names, _) = name_server("rebound.test", machine.here);
    let lab = lab(Policy { name_servers: vec![names], ..policy("rebound.test *", "host metadata") });
    let (_, output) = sh(&lab, Network::Default, &format!("get $(ip_of rebound.test) {} / || echo refused", at.port()));
    assert!(output.contains("refused") && !output.contains("hello"), "{output}");
}

#[test]
fn with_everything_denied_the_allow_list_is_all_there_is() {
    let machine = Machine::new(234);
    let (names, asked_other) = name_server("good.test", machine.there);
    let lab = lab(Policy { name_servers: vec![names], ..policy("good.test:80", "*") });
    let script = format!(
        "get {0} 80 / && echo BY-ADDRESS; get $(ip_of good.test) 80 /; \
         get $(ip_of good.test) 81 / && echo OTHER-PORT; nslookup secret.evil.test 2>&1; echo end",
        machine.there
    );
    let (_, output) = sh(&lab, Network::Default, &script);
    assert!(output.contains("from another machine\n") && output.ends_with("end\n"), "{output}");
    assert!(!output.contains("BY-ADDRESS") && !output.contains("OTHER-PORT"), "{output}");
    assert!(
        !asked_other.load(Ordering::SeqCst),
        "a name that is not on the list was asked for, and could carry anything"
    );
}

#[test]
fn the_servers_own_door_is_reached_by_its_name() {
    let at = hello(Ipv4Addr::LOCALHOST);
    let gate = Gate { name: "reg.test".to_owned(), port: 8443, to: at };
    let lab = lab(Policy { gates: vec![gate], ..policy("", "*") });
    let script = "for name in reg.test my.reg.test; do get $(ip_of $name) 8443 /; done; get $(ip_of reg.test) 22 / || echo refused";
    let (_, output) = sh(&lab, Network::Default, script);
    assert!(output.starts_with("hello from the host\nhello from the host\n") && output.contains("refused"), "{output}");
}

#[test]
fn two_steps_at_once_do_not_see_each_other() {
    let lab = lab(policy("", ""));
    let script = "mkdir /www; echo mine > /www/index.html; busybox httpd -p 8080 -h /www; echo up; \
                  i=0; while [ $i -lt 20 ]; do get 127.0.0.1 8080 / >/dev/null || echo FAILED; i=$((i+1)); done; echo end";
    std::thread::scope(|scope| {
        let both: Vec<_> = (0..2).map(|_| scope.spawn(|| sh(&lab, Network::Default, script).1)).collect();
        for one in both {
            assert_eq!(one.join().unwrap(), "up\nend\n", "both listen on the same port");
        }
    });
}

#[test]
fn a_flood_of_connections_stays_the_steps_own_trouble() {
    let machine = Machine::new(235);
    let lab = lab(policy("", "host"));
    let script = format!(
        "i=0; while [ $i -lt 700 ]; do busybox nc {0} 80 </dev/zero >/dev/null 2>&1 & i=$((i+1)); done; sleep 0.5; echo end; kill -9 -1",
        machine.there
    );
    let threads = || std::fs::read_dir("/proc/self/task").unwrap().count();
    let before = threads();
    let (_, output) = sh(&lab, Network::Default, &script);
    assert!(output.contains("end"), "{output}");
    // Every thread that carried something is gone with the step (other tests have their own).
    wait(|| threads() <= before + 100);
}

/// What a network costs a step. Run with `--ignored --nocapture` on an idle machine.
#[test]
#[ignore = "prints times, asserts nothing"]
fn time_of_a_network() {
    let lab = lab(policy("", "host metadata"));
    for network in [Network::Host, Network::None, Network::Default] {
        let mut times: Vec<Duration> = (0..40)
            .map(|_| {
                let active = lab.begin();
                let mut spec = step(active.root(), ":");
                spec.network = network;
                let at = Instant::now();
                lab.run(&spec, &Cancel::new()).0.unwrap();
                at.elapsed()
            })
            .collect();
        times.sort();
        println!("{network:?}: {:?}", times[times.len() / 2]);
    }
}
