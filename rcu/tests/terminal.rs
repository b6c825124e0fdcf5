//! What `rcu demo` and `rcu top` do to a real terminal, that of `script`, which is gone after the test.

#![allow(clippy::unwrap_used)]

mod support;

use std::io::{Read, Write};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use support::{PATIENCE, Up, wait_for};

/// To the screen that keeps nothing, and back.
const TAKEN: &str = "\x1b[?1049h";
const GIVEN_BACK: &str = "\x1b[?1049l";

const XTERM: &str = "xterm-256color";

/// A shell on a terminal; killed where a test fails before it ends.
struct Terminal {
    process: Child,
    shown: Arc<Mutex<String>>,
}

impl Terminal {
    /// Of 80 columns and 24 rows. Ctrl-C is for `rcu` alone, so that there is an after. After `rcu` has ended it says with which code, and how the terminal is set.
    fn start(term: &str, rcu: &str) -> Self {
        let program = env!("CARGO_BIN_EXE_rcu");
        let shell = format!(
            "trap : INT; stty rows 24 cols 80; echo tty=$(tty); sh -c 'echo pid=$$; exec \"{program}\" {rcu}'; \
             echo code=$?; stty -a"
        );
        let mut process = Command::new("script")
            .args(["--quiet", "--flush", "--command", &shell, "/dev/null"])
            .env("TERM", term)
            .env("SHELL", "/bin/sh")
            .env_remove("NO_COLOR")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let shown = Arc::new(Mutex::new(String::new()));
        let (mut stdout, seen) = (process.stdout.take().unwrap(), shown.clone());
        thread::spawn(move || {
            let mut bytes = [0; 4_096];
            while let Ok(count @ 1..) = stdout.read(&mut bytes) {
                let text = String::from_utf8_lossy(&bytes[..count]);
                seen.lock().unwrap().push_str(&text);
            }
        });
        Self { process, shown }
    }

    fn shown(&self) -> String {
        self.shown.lock().unwrap().clone()
    }

    fn wait_for(&self, text: &str) {
        wait_for(text, || self.shown().contains(text));
    }

    /// What it said of itself before the picture came.
    fn said(&self, name: &str) -> String {
        let shown = self.shown();
        let said = shown.lines().find_map(|line| line.strip_prefix(name));
        said.expect(&shown).trim().to_owned()
    }

    fn press(&mut self, keys: &[u8]) {
        let stdin = self.process.stdin.as_mut().unwrap();
        stdin.write_all(keys).unwrap();
        stdin.flush().unwrap();
    }

    /// What was shown before the picture, instead of it, and after it.
    fn parts(&self) -> [String; 3] {
        self.wait_for("echoctl");
        let shown = self.shown();
        let (before, rest) = shown.split_once(TAKEN).expect(&shown);
        let (picture, after) = rest.split_once(GIVEN_BACK).expect(&shown);
        assert!(!after.contains(TAKEN), "{shown}");
        [before, picture, after].map(str::to_owned)
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        // Fails where it has ended already.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Lines are edited and echoed again.
fn assert_is_restored(after: &str) {
    for mode in ["icanon", "isig", "echo"] {
        assert!(
            after.split_whitespace().any(|it| it == mode),
            "{mode}: {after}"
        );
    }
    assert!(after.contains("\x1b[?25h"), "the cursor: {after}");
}

#[test]
fn a_demo_scrolls_nothing_ends_by_q_and_leaves_its_last_picture_and_the_verdict() {
    let mut terminal = Terminal::start(XTERM, "demo --devices 5");
    // Of what stands in a picture already only the rest is sent.
    terminal.wait_for("rows/s");
    terminal.press(b"q");
    let [_, picture, after] = terminal.parts();
    assert!(
        !picture.contains('\n'),
        "a line feed may scroll: {picture:?}"
    );
    assert!(after.contains("RCU demo   0:0"), "{after}");
    assert!(after.contains("of 5 attached"), "{after}");
    // Which one depends on how far the devices got meanwhile.
    assert!(
        after.contains("verdict  ") && after.contains("code="),
        "{after}"
    );
    assert_is_restored(&after);
}

#[test]
fn top_gives_the_terminal_back_by_ctrl_c_and_by_sigterm() {
    let up = Up::start();
    let top = format!("top --every 500ms --data {}", up.data.path().display());
    let mut terminal = Terminal::start(XTERM, &top);
    terminal.wait_for("balancer-1");
    terminal.press(b"\x03");
    let [_, _, after] = terminal.parts();
    assert!(
        after.contains("logic-2") && after.contains("code=0"),
        "{after}"
    );
    assert_is_restored(&after);

    let terminal = Terminal::start(XTERM, &format!("{top} --color never"));
    terminal.wait_for("balancer-1");
    let pid = terminal.said("pid=");
    let killed = Command::new("kill").args(["-TERM", &pid]).status();
    assert!(killed.unwrap().success());
    let [_, picture, after] = terminal.parts();
    assert!(!picture.contains("\x1b[38"), "a colour: {picture:?}");
    assert!(after.contains("code=0"), "{after}");
    assert_is_restored(&after);
}

#[test]
fn a_picture_follows_the_size_of_the_terminal_at_once() {
    let up = Up::start();
    // No second look comes to its help.
    let top = format!("top --every 1m --data {}", up.data.path().display());
    let mut terminal = Terminal::start(XTERM, &top);
    terminal.wait_for("balancer-1");
    let tty = terminal.said("tty=");
    let resized = Command::new("stty")
        .args(["-F", &tty, "rows", "12", "cols", "40"])
        .status();
    assert!(resized.unwrap().success());
    terminal.wait_for("40x12");
    // crossterm may lose a key that comes together with a change of size (of which stty makes two): whoever
    // sees that nothing happened presses it again.
    let ends = Instant::now() + PATIENCE;
    while !terminal.shown().contains(GIVEN_BACK) && Instant::now() < ends {
        terminal.press(b"q");
        thread::sleep(Duration::from_secs(1));
    }
    terminal.parts();
}

#[test]
fn top_that_fails_gives_the_terminal_back_before_it_says_why() {
    let up = Up::start();
    let top = format!("top --every 500ms --data {}", up.data.path().display());
    let terminal = Terminal::start(XTERM, &top);
    terminal.wait_for("balancer-1");
    drop(up);
    let [_, _, after] = terminal.parts();
    assert!(
        after.contains("rcu: ") && after.contains("code=1"),
        "{after}"
    );
    assert_is_restored(&after);
}

#[test]
fn a_terminal_that_only_types_gets_lines() {
    let up = Up::start();
    let top = format!("top --every 500ms --data {}", up.data.path().display());
    let mut terminal = Terminal::start("dumb", &top);
    terminal.wait_for("Z sessions 0 of ");
    terminal.press(b"\x03");
    terminal.wait_for("echoctl");
    let shown = terminal.shown();
    assert!(shown.contains("code=0"), "{shown}");
    assert!(!shown.contains('\x1b'), "{shown:?}");
}
