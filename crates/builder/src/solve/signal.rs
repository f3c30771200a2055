//! Names of signals, as `STOPSIGNAL` takes them.

const NAMES: [&str; 36] = [
    "ABRT", "ALRM", "BUS", "CHLD", "CLD", "CONT", "FPE", "HUP", "ILL", "INT", "IO", "IOT", "KILL", "PIPE", "POLL",
    "PROF", "PWR", "QUIT", "SEGV", "STKFLT", "STOP", "SYS", "TERM", "TRAP", "TSTP", "TTIN", "TTOU", "URG", "USR1",
    "USR2", "VTALRM", "WINCH", "XCPU", "XFSZ", "RTMIN", "RTMAX",
];

/// Whether `text` is a signal's number or its name, with or without `SIG`.
pub(super) fn is_known(text: &str) -> bool {
    if let Ok(number) = text.parse::<u32>() {
        return (1..=64).contains(&number);
    }
    let name = text.to_ascii_uppercase();
    let name = name.strip_prefix("SIG").unwrap_or(&name);
    let offset = |rest: &str, max: u32| rest.parse::<u32>().is_ok_and(|n| n <= max);
    NAMES.contains(&name)
        || name.strip_prefix("RTMIN+").is_some_and(|n| offset(n, 30))
        || name.strip_prefix("RTMAX-").is_some_and(|n| offset(n, 30))
}
