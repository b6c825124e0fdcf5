//! Pure. A drive that looks like one: what a vehicle's sensors say from report to report.
//!
//! The vehicle follows legs of road from junction to junction, never far from home. Everything it
//! measures comes from one state: the gyroscope turns as the heading does, fuel falls as the
//! engine runs, the odometer counts what the positions show. Now and then a field is not
//! available, the satellites are lost, or the engine has something to complain of.
//!
//! An account's vehicle is the same in every run: it has its home, and its counters since manufacture go
//! on from run to run as those of a real one do.

use common::ids::AccountName;
use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};
use records::{Custom, Diagnosis, Fuel, Gps, Gyroscope, Record, TroubleCodes};

use crate::device::Measurement;
use crate::digest::digest;

/// The longest stretch that is integrated at once; after more, the vehicle was parked.
const STEP_MS: u64 = 1_000;
const STEPS_MAX: u64 = 60;
/// A vehicle further from home than this turns back.
const HOME_M: f64 = 20_000.0;
const METRES_PER_DEGREE: f64 = 111_320.0;
const G_M_S2: f64 = 9.806_65;

const TANK_ML: f64 = 60_000.0;
/// Where the driver looks for a filling station.
const RESERVE_ML: f64 = 5_000.0;
const COOLANT_C: f64 = 91.0;
const TURN_DEG_S: f64 = 18.0;
const TURNING_M_S: f64 = 7.0;
const SPEED_M_S_MAX: f64 = 27.0;
const ACCELERATION_M_S2_MAX: f64 = 1.8;

/// 2026-01-01T00:00:00Z. What every vehicle used until then, nobody saw.
const SEEN_SINCE_UNIX_MS: u64 = 1_767_225_600_000;

/// Misfire, catalyst, lean mixture, speed sensor, lost communication.
const TROUBLE_CODES: [u16; 5] = [0x0301, 0x0420, 0x0171, 0x0500, 0xC100];
const TROUBLE_CODES_MAX: usize = 3;
/// What the cargo sensor reports on.
const CARGO_CHANNEL: u16 = 1;

/// The kinds that a drive makes, all of them in its first report.
pub const KINDS: [u8; 5] = [
    Gps::KIND,
    Fuel::KIND,
    Gyroscope::KIND,
    Diagnosis::KIND,
    Custom::KIND,
];

/// What a drive begins with.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Vehicle {
    home_latitude: f64,
    home_longitude: f64,
    used_ml: f64,
    odometer_m: f64,
}

impl Vehicle {
    /// That of an account, at a time of the wall clock. Runs remember nothing of one another, so while
    /// nobody simulates it somebody else drives it, as hard as can be: what an earlier run reported is
    /// never more.
    pub fn of(account: &AccountName, unix_ms: u64) -> Self {
        let mut rng = SmallRng::seed_from_u64(digest(0, 0, account.as_str().as_bytes()));
        let used_ml = rng.random_range(1e6..2e7);
        let seconds = unix_ms.saturating_sub(SEEN_SINCE_UNIX_MS) as f64 / 1_000.0;
        let ml_h_max = fuel_ml_h(SPEED_M_S_MAX, ACCELERATION_M_S2_MAX);
        Self {
            home_latitude: rng.random_range(-55.0..65.0),
            home_longitude: rng.random_range(-175.0..175.0),
            used_ml: used_ml + ml_h_max * seconds / 3_600.0,
            // Seven litres per hundred kilometres.
            odometer_m: used_ml / 0.07 + SPEED_M_S_MAX * seconds,
        }
    }
}

#[derive(Debug)]
pub struct Drive {
    rng: SmallRng,
    last_ms: Option<u64>,
    reports: u64,

    vehicle: Vehicle,
    /// From home, to the east and to the north.
    east_m: f64,
    north_m: f64,
    heading_deg: f64,
    speed_m_s: f64,
    /// Of the last step; what the gyroscope feels.
    turn_deg_s: f64,
    acceleration_m_s2: f64,

    leg_left_m: f64,
    turn_left_deg: f64,
    cruise_m_s: f64,
    standing_s: f64,

    tank_ml: f64,
    fuel_ml_h: f64,
    coolant_c: f64,
    trouble_codes: Vec<u16>,
    /// Reports that the satellites stay lost.
    no_fix: u32,
}

/// What a report consists of. Kept and cleared from report to report, it stops allocating.
#[derive(Debug, Default)]
pub struct Report {
    bytes: Vec<u8>,
    /// Kind, and where its payload ends.
    records: Vec<(u8, usize)>,
}

impl Report {
    pub fn measurements(&self) -> impl Iterator<Item = Measurement<'_>> {
        let mut start = 0;
        self.records.iter().map(move |&(kind, end)| {
            let payload = &self.bytes[start..end];
            start = end;
            Measurement { kind, payload }
        })
    }

    fn clear(&mut self) {
        self.bytes.clear();
        self.records.clear();
    }

    fn push(&mut self, record: &Record<'_>) {
        record.encode_payload(&mut self.bytes);
        self.records.push((record.kind(), self.bytes.len()));
    }
}

impl Drive {
    /// Two drives of one vehicle and one seed are the same drive.
    pub fn new(vehicle: Vehicle, seed: u64) -> Self {
        let mut rng = SmallRng::seed_from_u64(seed);
        let mut drive = Self {
            last_ms: None,
            reports: 0,
            vehicle,
            east_m: rng.random_range(-3_000.0..3_000.0),
            north_m: rng.random_range(-3_000.0..3_000.0),
            heading_deg: rng.random_range(0.0..360.0),
            speed_m_s: 0.0,
            turn_deg_s: 0.0,
            acceleration_m_s2: 0.0,
            leg_left_m: 0.0,
            turn_left_deg: 0.0,
            cruise_m_s: 0.0,
            standing_s: 0.0,
            tank_ml: rng.random_range(0.15..1.0) * TANK_ML,
            fuel_ml_h: 0.0,
            coolant_c: rng.random_range(5.0..30.0),
            trouble_codes: Vec::new(),
            no_fix: 0,
            rng,
        };
        drive.begin_leg();
        drive
    }

    /// Drives on to `now_ms` (of any clock that only grows) and measures: position and motion
    /// always, fuel every second time, diagnosis every fourth, cargo every sixteenth; the first
    /// report has everything.
    pub fn report(&mut self, now_ms: u64, report: &mut Report) {
        self.drive_to(now_ms);
        report.clear();
        let nth = self.reports;
        self.reports += 1;
        report.push(&Record::Gps(self.gps()));
        report.push(&Record::Gyroscope(self.gyroscope()));
        if nth.is_multiple_of(2) {
            report.push(&Record::Fuel(self.fuel()));
        }
        if nth.is_multiple_of(4) {
            self.find_trouble();
            let codes: Vec<u8> = self
                .trouble_codes
                .iter()
                .flat_map(|code| code.to_le_bytes())
                .collect();
            let trouble_codes = TroubleCodes::from_wire(&codes).unwrap_or_default();
            report.push(&Record::Diagnosis(self.diagnosis(trouble_codes)));
        }
        if nth.is_multiple_of(16) {
            let data = self.rng.random::<u32>().to_le_bytes();
            report.push(&Record::Custom(Custom {
                channel: CARGO_CHANNEL,
                data: &data,
            }));
        }
    }

    // ---- the road -----------------------------------------------------------------------------

    fn drive_to(&mut self, now_ms: u64) {
        let last_ms = self.last_ms.replace(now_ms).unwrap_or(now_ms);
        let elapsed_ms = now_ms.saturating_sub(last_ms);
        let steps = elapsed_ms.div_ceil(STEP_MS);
        if steps > STEPS_MAX {
            self.speed_m_s = 0.0;
            self.turn_deg_s = 0.0;
            self.acceleration_m_s2 = 0.0;
            self.fuel_ml_h = 0.0;
            return;
        }
        for _ in 0..steps {
            self.step(elapsed_ms as f64 / 1_000.0 / steps as f64);
        }
    }

    fn step(&mut self, seconds: f64) {
        let wanted_m_s = if self.standing_s > 0.0 {
            0.0
        } else if self.turn_left_deg != 0.0 {
            TURNING_M_S
        } else {
            self.cruise_m_s
        };
        let change_m_s =
            (wanted_m_s - self.speed_m_s).clamp(-3.0 * seconds, ACCELERATION_M_S2_MAX * seconds);
        self.acceleration_m_s2 = change_m_s / seconds;
        self.speed_m_s += change_m_s;
        self.standing_s = (self.standing_s - seconds).max(0.0);

        let turn_deg = if self.speed_m_s > 1.0 {
            self.turn_left_deg
                .clamp(-TURN_DEG_S * seconds, TURN_DEG_S * seconds)
        } else {
            0.0
        };
        self.turn_left_deg -= turn_deg;
        self.turn_deg_s = turn_deg / seconds;
        self.heading_deg = (self.heading_deg + turn_deg).rem_euclid(360.0);

        let way_m = self.speed_m_s * seconds;
        let heading = self.heading_deg.to_radians();
        self.east_m += way_m * heading.sin();
        self.north_m += way_m * heading.cos();
        self.vehicle.odometer_m += way_m;
        self.leg_left_m -= way_m;
        if self.leg_left_m <= 0.0 {
            self.begin_leg();
        }
        self.run_engine(seconds);
    }

    fn run_engine(&mut self, seconds: f64) {
        self.fuel_ml_h = fuel_ml_h(self.speed_m_s, self.acceleration_m_s2.max(0.0));
        let burnt_ml = self.fuel_ml_h * seconds / 3_600.0;
        self.tank_ml = (self.tank_ml - burnt_ml).max(0.0);
        self.vehicle.used_ml += burnt_ml;
        self.coolant_c += (COOLANT_C - self.coolant_c) * seconds / 240.0;
    }

    /// At a junction: the next stretch, perhaps a red light, perhaps a filling station.
    fn begin_leg(&mut self) {
        let rng = &mut self.rng;
        self.leg_left_m = rng.random_range(100.0..1_400.0);
        self.cruise_m_s = rng.random_range(8.0..SPEED_M_S_MAX);
        self.turn_left_deg = if self.east_m.hypot(self.north_m) > HOME_M {
            let homewards_deg = (-self.east_m).atan2(-self.north_m).to_degrees();
            (homewards_deg - self.heading_deg + 180.0).rem_euclid(360.0) - 180.0
        } else if rng.random_bool(0.6) {
            rng.random_range(-110.0..110.0)
        } else {
            0.0
        };
        if rng.random_bool(0.3) {
            self.standing_s = rng.random_range(5.0..45.0);
        }
        if self.tank_ml < RESERVE_ML {
            self.standing_s = 180.0;
            self.tank_ml = rng.random_range(0.9..1.0) * TANK_ML;
        }
    }

    fn altitude_m(&self) -> f64 {
        let (east, north) = (self.east_m / 4_000.0, self.north_m / 5_500.0);
        180.0 + 60.0 * east.sin() + 45.0 * north.cos() + 12.0 * (east * 3.1 + north).sin()
    }

    // ---- the sensors --------------------------------------------------------------------------

    /// Now and then a field is not available.
    fn sometimes<T>(&mut self, one_in: u32, value: T) -> Option<T> {
        (!self.rng.random_ratio(1, one_in)).then_some(value)
    }

    fn gps(&mut self) -> Gps {
        if self.no_fix == 0 && self.rng.random_ratio(1, 80) {
            self.no_fix = self.rng.random_range(1..5);
        }
        if self.no_fix > 0 {
            self.no_fix -= 1;
            return Gps {
                latitude: None,
                longitude: None,
                altitude_cm: None,
                speed_cm_s: None,
                heading: None,
                satellites: Some(self.rng.random_range(0..4)),
                hdop: None,
            };
        }
        let latitude = self.vehicle.home_latitude + self.north_m / METRES_PER_DEGREE;
        let narrowing = self.vehicle.home_latitude.to_radians().cos();
        let longitude = self.vehicle.home_longitude + self.east_m / (METRES_PER_DEGREE * narrowing);
        let altitude_cm = (self.altitude_m() * 100.0) as i32;
        Gps {
            latitude: Some((latitude * 1e7) as i32),
            longitude: Some((longitude * 1e7) as i32),
            altitude_cm: self.sometimes(40, altitude_cm),
            speed_cm_s: Some((self.speed_m_s * 100.0) as u16),
            heading: Some((self.heading_deg * 100.0) as u16 % 36_000),
            satellites: Some(self.rng.random_range(6..14)),
            hdop: Some(self.rng.random_range(6..20)),
        }
    }

    /// Turning right is negative about the upward axis; the force in a turn points inwards.
    fn gyroscope(&mut self) -> Gyroscope {
        let mut noise = |range: f64| self.rng.random_range(-range..range);
        let rate = |deg_s: f64| Some((deg_s * 10.0).round() as i16);
        let force = |m_s2: f64| Some((m_s2 / G_M_S2 * 1_000.0).round() as i16);
        let inwards_m_s2 = -self.speed_m_s * self.turn_deg_s.to_radians();
        Gyroscope {
            rate: [rate(noise(0.4)), rate(noise(0.4)), rate(-self.turn_deg_s)],
            acceleration: [
                force(self.acceleration_m_s2 + noise(0.05)),
                force(inwards_m_s2 + noise(0.05)),
                force(G_M_S2 + noise(0.2)),
            ],
        }
    }

    fn fuel(&mut self) -> Fuel {
        let level = (self.tank_ml / TANK_ML * 10_000.0) as u16;
        let (rate_ml_h, used_ml) = (self.fuel_ml_h as u32, self.vehicle.used_ml as u64);
        Fuel {
            level: self.sometimes(60, level),
            rate_ml_h: self.sometimes(30, rate_ml_h),
            used_ml: Some(used_ml),
        }
    }

    fn find_trouble(&mut self) {
        if self.rng.random_ratio(1, 40) && self.trouble_codes.len() < TROUBLE_CODES_MAX {
            let code = TROUBLE_CODES[self.rng.random_range(0..TROUBLE_CODES.len())];
            if !self.trouble_codes.contains(&code) {
                self.trouble_codes.push(code);
            }
        } else if self.rng.random_ratio(1, 30) {
            self.trouble_codes.clear();
        }
    }

    fn diagnosis<'a>(&mut self, trouble_codes: TroubleCodes<'a>) -> Diagnosis<'a> {
        let rpm = 780.0 + 95.0 * self.speed_m_s % 1_900.0 + self.rng.random_range(0.0..30.0);
        let coolant = (self.coolant_c * 10.0) as i16;
        let battery_mv = self.rng.random_range(13_700..14_300);
        Diagnosis {
            rpm: Some(rpm as u16),
            coolant: self.sometimes(50, coolant),
            battery_mv: Some(battery_mv),
            odometer_m: Some((self.vehicle.odometer_m as u64 % u64::from(u32::MAX)) as u32),
            flags: u8::from(!self.trouble_codes.is_empty()),
            trouble_codes,
        }
    }
}

fn fuel_ml_h(speed_m_s: f64, push_m_s2: f64) -> f64 {
    750.0 + 210.0 * speed_m_s + 2_600.0 * push_m_s2
}

#[cfg(test)]
mod tests;
