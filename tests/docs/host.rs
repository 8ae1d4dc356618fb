//! Commands for a host: a network of its own, `/etc`, `/var` and `/run` that are gone afterwards, logs with an attacker in
//! them, and the agent as the page configures it.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::docs::{Block, blocks, documents};
use crate::top;

/// What the documents call the attacker.
const OFFENDER: &str = "203.0.113.7";

/// Begins a host of its own: nothing outside of it is seen to change.
const HOST: &str = r#"
set -eu
mount --make-rprivate /
for dir in etc var; do
    mkdir -p "$T/$dir/upper" "$T/$dir/work"
    mount -t overlay overlay -o "lowerdir=/$dir,upperdir=$T/$dir/upper,workdir=$T/$dir/work" "/$dir"
done
mount -t tmpfs none /srv
mount -t tmpfs none /run
rm -rf /var/lib/stockade /var/lib/docker /var/log/nginx /var/log/apache2
mkdir -p /etc/stockade /run/stockade /srv/npm/data/logs /var/log/traefik /var/log/nginx
cp "$T/npm.log" /srv/npm/data/logs/proxy-host-1_access.log
cp "$T/traefik.log" /var/log/traefik/access.log
cp "$T/nginx.log" /var/log/nginx/access.log
cp "$T/haproxy.log" /var/log/haproxy.log
cp "$T/config.yaml" /etc/stockade/config.yaml
: > /var/log/auth.log
ip link set lo up
ip link add wire type veth peer name far
ip link set far up
ip addr add 192.0.2.1/24 dev wire
ip link set wire up
start() {
    stockade run 2>>"$T/agent.log" &
    for n in $(seq 100); do
        if stockade ping 2>/dev/null; then return; fi
        sleep 0.1
    done
    echo 'the agent does not answer'; cat "$T/agent.log"; exit 1
}
tell() { status=$?; [ $status -eq 0 ] || { echo "exit status $status of: $COMMAND"; cat "$T/agent.log"; }; stockade stop 2>/dev/null || :; exit $status; }
COMMAND=start
trap tell EXIT
"#;

/// The script that runs the blocks of one page, one after the other, with an agent for each that needs one.
fn script(blocks: &[&Block]) -> String {
    let mut script = HOST.to_owned();
    for block in blocks {
        script.push_str("COMMAND='start of the agent'\nstockade ping 2>/dev/null || start\n");
        for command in block.text.lines().filter(|line| !line.trim().is_empty()) {
            let quoted = command.replace('\'', r"'\''");
            writeln!(script, "COMMAND='{quoted}'\necho \"$ $COMMAND\"\n{command}").unwrap();
        }
    }
    script
}

/// Lines of the last minutes: an attacker who asks for what is not there, and a visitor.
fn logs(dir: &Path) {
    let (mut npm, mut traefik) = (String::new(), String::new());
    let (mut nginx, mut haproxy) = (String::new(), String::new());
    let now = jiff::Zoned::now();
    for n in 0..40_i64 {
        let at = &now - jiff::Span::new().seconds(40 - n);
        let clf = at.strftime("%d/%b/%Y:%H:%M:%S %z");
        let client = if n % 4 == 0 { "198.51.100.20" } else { OFFENDER };
        let (status, path) =
            if n % 4 == 0 { (200, "/".to_owned()) } else { (404, format!("/wp-login.php?{n}")) };
        writeln!(npm, "[{clf}] - {status} {status} - GET https app.example.org \"{path}\" [Client {client}] [Length 5] [Gzip -] [Sent-to 10.0.0.2] \"curl/8.7.1\" \"-\"").unwrap();
        writeln!(nginx, "{client} - - [{clf}] \"GET {path} HTTP/1.1\" {status} 5 \"-\" \"curl/8.7.1\"")
            .unwrap();
        let (syslog, accepted) = (at.strftime("%b %e %H:%M:%S"), at.strftime("%d/%b/%Y:%H:%M:%S.000"));
        writeln!(haproxy, "{syslog} web1 haproxy[71]: {client}:40022 [{accepted}] web~ app/s1 0/0/1/2/3 {status} 5 - - ---- 1/1/0/0/0 0/0 \"GET {path} HTTP/1.1\"").unwrap();
        let time = at.timestamp();
        writeln!(traefik, r#"{{"ClientAddr":"{client}:40022","ClientHost":"{client}","ClientPort":"40022","ClientUsername":"-","DownstreamContentSize":19,"DownstreamStatus":{status},"Duration":72313,"RequestCount":{n},"RequestHost":"app.example.org","RequestMethod":"GET","RequestPath":"{path}","RequestProtocol":"HTTP/2.0","RequestScheme":"https","StartLocal":"{time}","StartUTC":"{time}","entryPointName":"websecure","level":"info","msg":"","request_User-Agent":"curl/8.7.1","time":"{time}"}}"#).unwrap();
    }
    fs::write(dir.join("npm.log"), npm).unwrap();
    fs::write(dir.join("traefik.log"), traefik).unwrap();
    fs::write(dir.join("nginx.log"), nginx).unwrap();
    fs::write(dir.join("haproxy.log"), haproxy).unwrap();
}

/// The configuration that a page says is `/etc/stockade/config.yaml`; without one, that of the README.
fn config(file: &Path) -> String {
    let marked = |file: &Path| {
        let text = fs::read_to_string(top().join(file)).unwrap();
        let from = text.split_once("<!-- config: /etc/stockade/config.yaml -->\n```yaml\n")?.1;
        Some(from.split_once("```").unwrap().0.to_owned())
    };
    marked(file).or_else(|| marked(Path::new("README.md"))).unwrap()
}

fn run(file: &Path) {
    assert!(nix::unistd::geteuid().is_root(), "this test makes namespaces: run tests/run as root");
    let all = blocks(file);
    let ours: Vec<&Block> = all.iter().filter(|block| block.runner == "host").collect();
    assert!(!ours.is_empty(), "{} has no commands for a host", file.display());
    let dir = tempfile::tempdir().unwrap();
    logs(dir.path());
    fs::write(dir.path().join("config.yaml"), config(file)).unwrap();
    let program = PathBuf::from(env!("CARGO_BIN_EXE_stockade"));
    let path = format!("{}:/usr/sbin:/usr/bin:/sbin:/bin", program.parent().unwrap().display());
    let out = Command::new("unshare")
        .args([
            "--mount",
            "--net",
            "--uts",
            "--ipc",
            "--pid",
            "--fork",
            "--mount-proc",
            "--kill-child",
            "sh",
            "-c",
        ])
        .arg(script(&ours))
        .env("T", dir.path())
        .env("PATH", path)
        .env_remove("STOCKADE_CONFIG")
        .stdin(Stdio::null())
        .output()
        .unwrap();
    assert!(
        out.status.success(),
        "{}:\n{}{}",
        file.display(),
        String::from_utf8_lossy(&out.stdout),
        String::from_utf8_lossy(&out.stderr)
    );
    // What a reader is told about the attacker must be so: each page that lists bans has banned him.
    if ours.iter().any(|block| block.text.contains("stockade bans")) {
        assert!(
            String::from_utf8_lossy(&out.stdout).contains(OFFENDER),
            "{}",
            String::from_utf8_lossy(&out.stdout)
        );
    }
}

macro_rules! pages {
    ($($test:ident $file:literal),* $(,)?) => {
        $(#[test] fn $test() { run(Path::new($file)); })*

        #[test]
        fn no_page_is_left_out() {
            let with: Vec<PathBuf> = documents()
                .into_iter()
                .filter(|file| blocks(file).iter().any(|block| block.runner == "host"))
                .collect();
            let run: Vec<PathBuf> = [$($file),*].iter().map(PathBuf::from).collect();
            assert_eq!(with, run);
        }
    };
}

pages! {
    the_readme "README.md",
    the_page_about_cloudflare "docs/cloudflare.md",
    the_page_about_the_kernel "docs/kernel.md",
    the_page_about_nginx_proxy_manager "docs/npm.md",
    the_page_about_traefik "docs/traefik.md",
    the_page_about_trouble "docs/troubleshooting.md",
    the_page_about_web_servers "docs/web-servers.md",
}
