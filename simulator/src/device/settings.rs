//! Pure. What a device is built with.

use common::ids::AccountName;
use common::secret::DeviceKey;
use protocols::rcu::frame::FRAME_BYTES_TO_DEVICE_MAX;

/// Who a device is.
#[derive(Clone, Debug)]
pub struct Identity {
    pub account: AccountName,
    pub key: DeviceKey,
}

/// What the devices of one make have in common. Plain figures; shared, not copied, by thousands.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Version of the firmware: 0..=32 of printable ASCII.
    pub firmware: String,
    /// How often it measures, with a tenth of jitter, unless a command said otherwise;
    /// 0: only when [`Input::Report`](super::Input::Report) comes unasked.
    pub report_interval_ms: u32,
    /// Unacknowledged records that it has memory for; when that is full it makes no more.
    pub records_max: usize,
    /// Records in a Telemetry frame, 1..=255.
    pub frame_records_max: u8,
    /// Telemetry frames that it keeps open, however large the cluster's window is; at least 1.
    pub frames_open_max: u16,
    /// The longest Command frame that it holds, header included; a longer one is `unsupported`.
    pub command_bytes_max: usize,
    /// From power-on to the first login.
    pub boot_ms: u32,
    /// Whether its clock runs on while it is off. Without, it wakes not knowing the time.
    pub battery_clock: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            firmware: "sim-1.0".into(),
            report_interval_ms: 5_000,
            records_max: 2_000,
            frame_records_max: u8::MAX,
            frames_open_max: 64,
            command_bytes_max: FRAME_BYTES_TO_DEVICE_MAX,
            boot_ms: 0,
            battery_clock: true,
        }
    }
}
