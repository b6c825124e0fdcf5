//! F6: out of file descriptors. In a process of its own, because the limit is the process's.

use std::fs::File;
use std::net::SocketAddr;
use std::time::Duration;

use balancer::counters::{Counter, Gauge};
use balancer::{Balancer, Settings};
use common::link::{Key, Keys};
use common::secret::Secret;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use rustix::time::{ClockId, clock_gettime};
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep, timeout};

const PATIENCE: Duration = Duration::from_secs(10);

#[tokio::test]
async fn without_descriptors_devices_are_turned_away_counted_and_let_in_afterwards() {
    let limit = getrlimit(Resource::Nofile);
    let low = Rlimit {
        current: Some(128),
        ..limit
    };
    setrlimit(Resource::Nofile, low).expect("lowered");
    let settings = Settings {
        listen: vec![SocketAddr::from(([127, 0, 0, 1], 0))],
        conn_servers: vec!["127.0.0.1:1".into()],
        ..Settings::default()
    };
    let keys = Keys {
        cluster: vec![Key::new(Secret::new([1; 32]))],
        operator: vec![],
    };
    let node = "balancer-1".parse().expect("a name");
    let balancer = Balancer::start(settings, node, keys).expect("started");
    let address = balancer.addresses()[0];
    // The acceptor's task must have its reserve before the descriptors are gone.
    let first = TcpStream::connect(address).await.expect("connected");
    wait_for(|| balancer.stats().gauge(Gauge::Pending) == 1).await;

    // All descriptors but one are gone: a device can connect, the balancer cannot accept it.
    let mut hogs: Vec<File> = std::iter::from_fn(|| File::open("/dev/null").ok()).collect();
    for turned_away in 1..=5 {
        drop(hogs.pop());
        let mut device = TcpStream::connect(address).await.expect("connected");
        let mut heard = Vec::new();
        // An end or a reset: either is a no.
        let _ = timeout(PATIENCE, device.read_to_end(&mut heard))
            .await
            .expect("told");
        assert_eq!(heard, b"");
        wait_for(|| balancer.stats().count(Counter::NoDescriptor) == turned_away).await;
        drop(device);
        hogs.extend(File::open("/dev/null"));
    }
    // A loop that spins would burn all of this time.
    let (since, before) = (Instant::now(), cpu());
    sleep(Duration::from_millis(300)).await;
    let (elapsed, burnt) = (since.elapsed(), cpu() - before);
    assert!(burnt < elapsed / 4, "{burnt:?} of CPU in {elapsed:?}");

    hogs.clear();
    let second = TcpStream::connect(address).await.expect("connected");
    wait_for(|| balancer.stats().gauge(Gauge::Pending) == 2).await;
    drop((first, second));
    balancer.shutdown().await;
}

async fn wait_for(mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !condition() {
        assert!(Instant::now() < deadline, "waited in vain");
        sleep(Duration::from_millis(5)).await;
    }
}

/// What this process has used.
fn cpu() -> Duration {
    let used = clock_gettime(ClockId::ProcessCPUTime);
    Duration::try_from(used).expect("it runs forward")
}
