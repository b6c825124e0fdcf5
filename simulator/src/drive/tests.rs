//! A drive looks like one.

#![allow(clippy::unwrap_used)]

use super::*;

/// 2026-06-01T00:00:00Z.
const UNIX_MS: u64 = 1_780_272_000_000;

fn vehicle(number: u64, unix_ms: u64) -> Vehicle {
    Vehicle::of(&format!("truck-{number}").parse().unwrap(), unix_ms)
}

/// The records of `count` reports, `every_ms` apart.
fn reports(seed: u64, count: u64, every_ms: u64) -> Vec<Vec<(u8, Vec<u8>)>> {
    reports_of(Drive::new(vehicle(seed, UNIX_MS), seed), count, every_ms)
}

fn reports_of(mut drive: Drive, count: u64, every_ms: u64) -> Vec<Vec<(u8, Vec<u8>)>> {
    let mut report = Report::default();
    (0..count)
        .map(|nth| {
            drive.report(nth * every_ms, &mut report);
            report
                .measurements()
                .map(|measured| (measured.kind, measured.payload.to_vec()))
                .collect()
        })
        .collect()
}

fn all<T>(
    reports: &[Vec<(u8, Vec<u8>)>],
    pick: impl Fn(&Record<'_>) -> Option<T>,
) -> Vec<Option<T>> {
    reports
        .iter()
        .map(|report| {
            report
                .iter()
                .find_map(|(kind, payload)| pick(&Record::decode(*kind, payload).unwrap()))
        })
        .collect()
}

fn gps(reports: &[Vec<(u8, Vec<u8>)>]) -> Vec<Option<Gps>> {
    all(reports, |record| match record {
        Record::Gps(gps) => Some(*gps),
        _ => None,
    })
}

#[test]
fn every_record_is_in_range_and_the_first_report_has_every_kind() {
    for seed in 0..40 {
        let reports = reports(seed, 400, 5_000);
        let mut first: Vec<u8> = reports[0].iter().map(|(kind, _)| *kind).collect();
        first.sort_unstable();
        assert_eq!(first, KINDS);
        for (kind, payload) in reports.iter().flatten() {
            assert!(Record::decode(*kind, payload).is_ok());
        }
    }
}

#[test]
fn a_seed_is_a_drive() {
    assert_eq!(reports(5, 50, 1_000), reports(5, 50, 1_000));
    assert_ne!(reports(5, 50, 1_000), reports(6, 50, 1_000));
}

/// What the odometer of two fixes says: they are no further apart than the speed allows.
#[test]
fn positions_follow_speed_and_heading() {
    let gps = gps(&reports(3, 2_000, 1_000));
    let mut moved = 0;
    for pair in gps.windows(2) {
        let (Some(before), Some(after)) = (&pair[0], &pair[1]) else {
            continue;
        };
        let (Some(a), Some(b)) = (before.latitude, after.latitude) else {
            continue;
        };
        let (Some(c), Some(d)) = (before.longitude, after.longitude) else {
            continue;
        };
        let north_m = f64::from(b - a) / 1e7 * METRES_PER_DEGREE;
        let narrowing = (f64::from(a) / 1e7).to_radians().cos();
        let east_m = f64::from(d - c) / 1e7 * METRES_PER_DEGREE * narrowing;
        let way_m = f64::from(after.speed_cm_s.unwrap()) / 100.0;
        assert!((north_m.hypot(east_m) - way_m).abs() < 0.3, "{way_m}");
        if way_m > 3.0 {
            moved += 1;
            let heading = (f64::from(after.heading.unwrap()) / 100.0).to_radians();
            let along = north_m * heading.cos() + east_m * heading.sin();
            assert!((along - way_m).abs() < 0.3);
        }
    }
    assert!(moved > 500, "{moved}");
}

#[test]
fn the_gyroscope_turns_as_the_heading_does() {
    let reports = reports(8, 2_000, 1_000);
    let gps = gps(&reports);
    let rates = all(&reports, |record| match record {
        Record::Gyroscope(gyroscope) => gyroscope.rate[2],
        _ => None,
    });
    let mut turns = 0;
    for (pair, rate) in gps.windows(2).zip(&rates[1..]) {
        let headings = (
            pair[0].as_ref().and_then(|gps| gps.heading),
            pair[1].as_ref().and_then(|gps| gps.heading),
        );
        let (Some(before), Some(after)) = headings else {
            continue;
        };
        let turned = (f64::from(after) - f64::from(before)) / 100.0;
        let turned = (turned + 180.0).rem_euclid(360.0) - 180.0;
        let rate = f64::from(rate.unwrap()) / 10.0;
        assert!((turned + rate).abs() < 0.1, "{turned} {rate}");
        turns += usize::from(turned.abs() > 5.0);
    }
    assert!(turns > 50, "{turns}");
}

#[test]
fn fuel_falls_and_is_filled_up() {
    let used = all(&reports(2, 20_000, 5_000), |record| match record {
        Record::Fuel(fuel) => Some((fuel.level, fuel.used_ml.unwrap())),
        _ => None,
    });
    let used: Vec<_> = used.into_iter().flatten().collect();
    assert!(used.windows(2).all(|pair| pair[1].1 >= pair[0].1));
    let levels: Vec<u16> = used.iter().filter_map(|(level, _)| *level).collect();
    let falls = levels.windows(2).filter(|pair| pair[1] < pair[0]).count();
    let fills = levels.windows(2).filter(|pair| pair[1] > pair[0]).count();
    assert!(falls > 1_000 && (2..50).contains(&fills), "{falls} {fills}");
    assert!(levels.iter().all(|&level| level > 500));
}

/// Runs of any length, the next right after one or hours later: each of another seed, as `rcu simulate` is.
#[test]
fn counters_since_manufacture_go_on_from_run_to_run() {
    let counters = |reports: &[Vec<(u8, Vec<u8>)>]| {
        let used = all(reports, |record| match record {
            Record::Fuel(fuel) => fuel.used_ml,
            _ => None,
        });
        let odometer = all(reports, |record| match record {
            Record::Diagnosis(diagnosis) => diagnosis.odometer_m,
            _ => None,
        });
        (used, odometer)
    };
    for number in 0..20 {
        let (mut used, mut odometer) = (vec![], vec![]);
        let mut unix_ms = UNIX_MS;
        for (seed, seconds, pause_ms) in [(1, 20, 0), (2, 3_600, 0), (3, 60, 7_200_000), (4, 9, 0)]
        {
            let drive = Drive::new(vehicle(number, unix_ms), seed);
            let (of_fuel, of_road) = counters(&reports_of(drive, seconds, 1_000));
            used.extend(of_fuel.into_iter().flatten());
            odometer.extend(of_road.into_iter().flatten());
            unix_ms += seconds * 1_000 + pause_ms;
        }
        assert!(used.is_sorted(), "{used:?}");
        assert!(odometer.is_sorted(), "{odometer:?}");
    }
}

#[test]
fn a_vehicle_is_its_accounts_and_stays_where_it_lives() {
    let (now, later) = (vehicle(1, UNIX_MS), vehicle(1, UNIX_MS + 86_400_000));
    let home = |it: &Vehicle| (it.home_latitude, it.home_longitude);
    assert_eq!(home(&now), home(&later));
    assert_ne!(home(&now), home(&vehicle(2, UNIX_MS)));
    // A clock before all of that is none that a device would report with.
    assert!(vehicle(1, 0).used_ml <= now.used_ml);
}

#[test]
fn now_and_then_there_is_no_fix_and_there_are_trouble_codes() {
    let reports = reports(4, 2_000, 5_000);
    let fixes = gps(&reports);
    let lost = fixes.iter().flatten().filter(|gps| gps.latitude.is_none());
    assert!((20..400).contains(&lost.count()));
    let lamps = all(&reports, |record| match record {
        Record::Diagnosis(diagnosis) => Some(diagnosis.malfunction_lamp()),
        _ => None,
    });
    assert!(lamps.contains(&Some(true)) && lamps.contains(&Some(false)));
}

#[test]
fn it_stays_near_home_and_stands_still_over_a_long_pause() {
    let mut drive = Drive::new(vehicle(1, UNIX_MS), 1);
    for nth in 0..30_000 {
        drive.drive_to(nth * 5_000);
        assert!(drive.east_m.hypot(drive.north_m) < HOME_M + 6_000.0);
    }
    let at = (drive.east_m, drive.north_m);
    drive.drive_to(1_000_000_000);
    assert_eq!(at, (drive.east_m, drive.north_m));
}
