//! The circumstances of a run: machine, build, working tree, time.

use std::{
    collections::BTreeMap,
    fs,
    time::{SystemTime, UNIX_EPOCH},
};

use crate::record::Manifest;

/// Version of the code that numbers depend on: the package's, and a fingerprint of its sources, its dependencies and the compiler.
pub const CODE: &str = env!("XMBENCH_CODE");

/// Instruction sets that the kernels in use choose between.
const FLAGS: [&str; 10] =
    ["sse4_2", "avx", "avx2", "fma", "f16c", "avx512f", "avx512bw", "avx512vl", "avx512_vnni", "amx_tile"];

/// The circumstances that the machine and the build alone determine.
pub fn circumstances() -> Manifest {
    let cpu = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let field = |name: &str| {
        let line = cpu.lines().find(|line| line.split(':').next().is_some_and(|key| key.trim() == name));
        line.and_then(|line| line.split_once(':')).map(|(_, value)| value.trim().to_string())
    };
    let flags = field("flags").unwrap_or_default();
    let flags: Vec<&str> = flags.split_whitespace().filter(|flag| FLAGS.contains(flag)).collect();
    let mut versions: BTreeMap<String, String> = env!("XMBENCH_VERSIONS")
        .split_whitespace()
        .filter_map(|pair| pair.split_once('=').map(|(name, version)| (name.into(), version.into())))
        .collect();
    versions.insert("rustc".into(), env!("XMBENCH_RUSTC").into());
    versions.insert("build".into(), env!("XMBENCH_BUILD").into());
    versions.insert("code".into(), CODE.into());
    Manifest {
        version: env!("CARGO_PKG_VERSION").into(),
        started: now(),
        commit: env!("XMBENCH_COMMIT").into(),
        dirty: env!("XMBENCH_DIRTY") == "yes",
        cpu: field("model name").unwrap_or_else(|| std::env::consts::ARCH.into()),
        cpu_flags: flags.join(" "),
        memory: kibibytes("/proc/meminfo", "MemTotal:") * 1024,
        os: operating_system(),
        versions,
        ..Manifest::default()
    }
}

/// Processes that run or wait for a processor, the mean of the last minute, in hundredths; where the system says it.
pub fn load() -> Option<u32> {
    let text = fs::read_to_string("/proc/loadavg").ok()?;
    let mean: f64 = text.split_whitespace().next()?.parse().ok()?;
    Some((100.0 * mean).round() as u32)
}

fn kibibytes(path: &str, key: &str) -> u64 {
    let text = fs::read_to_string(path).unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix(key));
    line.and_then(|rest| rest.split_whitespace().next()).and_then(|number| number.parse().ok()).unwrap_or(0)
}

fn operating_system() -> String {
    let release = fs::read_to_string("/etc/os-release").unwrap_or_default();
    let name = release.lines().find_map(|line| line.strip_prefix("PRETTY_NAME="));
    let name = name.map_or(std::env::consts::OS, |name| name.trim_matches('"'));
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    format!("{name} {} {}", std::env::consts::ARCH, kernel.trim()).trim().to_string()
}

/// This moment, as [`utc`] writes it.
pub fn now() -> String {
    utc(SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs()))
}

/// `2026-01-31T12:00:00Z` of seconds since 1970.
pub fn utc(seconds: u64) -> String {
    let (year, month, day) = date(seconds / 86_400);
    let time = seconds % 86_400;
    format!("{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}Z", time / 3600, time / 60 % 60, time % 60)
}

/// Year, month and day of a number of days since 1970, after Howard Hinnant's `civil_from_days`: years begin in March, so
/// that the leap day is their last.
fn date(days: u64) -> (u64, u64, u64) {
    let days = days + 719_468;
    let (era, of_era) = (days / 146_097, days % 146_097);
    let year = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let march_month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * march_month + 2) / 5 + 1;
    let month = if march_month < 10 { march_month + 3 } else { march_month - 9 };
    (year + era * 400 + u64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_those_of_the_calendar() {
        // `date -u -d @N +%FT%TZ` of GNU coreutils.
        for (seconds, wanted) in [
            (0, "1970-01-01T00:00:00Z"),
            (951_782_400, "2000-02-29T00:00:00Z"),
            (1_704_067_199, "2023-12-31T23:59:59Z"),
            (4_107_542_400, "2100-03-01T00:00:00Z"),
        ] {
            assert_eq!(utc(seconds), wanted);
        }
    }
}
