//! A process without descriptors (F6). In a process of its own, because its limit is lowered.

#![allow(clippy::unwrap_used)]

mod support;

use std::fs::{File, read_dir};
use std::io::{Read, Seek};
use std::time::Duration;

use logic_server::counters::ShellCounter;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::time::timeout;

use support::{Cluster, Device, Heard, heartbeat, settings};

/// Clock ticks, 10 ms each, that the process has used.
fn cpu_ticks(stat: &mut File) -> u64 {
    let mut text = String::new();
    stat.rewind().unwrap();
    stat.read_to_string(&mut text).unwrap();
    let fields: Vec<_> = text
        .rsplit(')')
        .next()
        .unwrap()
        .split_whitespace()
        .collect();
    fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()
}

#[tokio::test]
async fn without_descriptors_connections_are_closed_and_counted_and_it_recovers() {
    let mut cluster = Cluster::start(settings()).await;
    let mut attached = cluster.attach(1).await;
    cluster
        .wait_for("SELECT count(*) FROM sessions", &[1])
        .await;
    let grant = cluster.conn.grant(2).await;

    // Opened now: later there is no descriptor for it.
    let mut stat = File::open("/proc/self/stat").unwrap();
    let open = read_dir("/proc/self/fd").unwrap().count() as u64;
    let limits = getrlimit(Resource::Nofile);
    setrlimit(
        Resource::Nofile,
        Rlimit {
            current: Some(open + 30),
            maximum: limits.maximum,
        },
    )
    .unwrap();
    let mut taken: Vec<File> = std::iter::from_fn(|| File::open("/dev/null").ok()).collect();
    for refused in 1..=3 {
        // The one descriptor that is left is the device's own.
        taken.pop();
        let mut device = Device::connect(cluster.devices_at()).await;
        assert_eq!(device.hear().await, Heard::End);
        // It is counted after it is closed.
        let counted = timeout(support::PATIENCE, async {
            while cluster
                .node
                .stats()
                .shell_count(ShellCounter::DroppedWithoutDescriptor)
                < refused
            {
                tokio::task::yield_now().await;
            }
        });
        assert!(counted.await.is_ok());
        drop(device);
        taken.extend(File::open("/dev/null"));
    }
    let before = cpu_ticks(&mut stat);
    tokio::time::sleep(Duration::from_millis(500)).await;
    let ticks = cpu_ticks(&mut stat) - before;
    assert!(ticks < 10, "it spins: {ticks} ticks of 50");
    attached.send(&heartbeat(2)).await;
    assert_eq!(attached.hear().await, Heard::HeartbeatReply);

    drop(taken);
    let mut device = Device::attach(cluster.devices_at(), &grant).await;
    device.send(&heartbeat(2)).await;
    assert_eq!(device.hear().await, Heard::HeartbeatReply);
}
