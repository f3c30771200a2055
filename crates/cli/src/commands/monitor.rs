//! `portolan monitor …`: what was done, by whom.

use std::time::Duration;

use clap::{Args, Subcommand};
use portolan_api::graph::quoted;
use portolan_api::transport::segment;
use portolan_types::Timestamp;

use super::{Context, signed_in};
use crate::args::{not_empty, time_or_day};
use crate::error::Result;
use crate::output::{Output, shape};
use crate::session::Session;

/// `portolan monitor …`
#[derive(Debug, Args)]
pub struct MonitorArgs {
    #[command(subcommand)]
    command: MonitorCommand,
}

#[derive(Debug, Subcommand)]
enum MonitorCommand {
    /// See every change to the control plane.
    #[command(subcommand)]
    ActivityLog(ActivityLogCommand),
}

#[derive(Debug, Subcommand)]
enum ActivityLogCommand {
    /// List events, the newest first.
    List(Box<ListArgs>),
}

#[derive(Debug, Args)]
struct ListArgs {
    /// Of one request and what it led to.
    #[arg(long, value_parser = not_empty, help_heading = "Filter")]
    correlation_id: Option<String>,
    /// Of a resource group.
    #[arg(short = 'g', long, value_name = "GROUP", value_parser = not_empty, help_heading = "Filter")]
    resource_group: Option<String>,
    /// Of a resource.
    #[arg(long, value_parser = not_empty, help_heading = "Filter")]
    resource_id: Option<String>,
    /// Of a provider, such as Microsoft.ContainerRegistry.
    #[arg(long, value_parser = not_empty, help_heading = "Filter")]
    namespace: Option<String>,
    /// By whom.
    #[arg(long, value_parser = not_empty, help_heading = "Filter")]
    caller: Option<String>,
    /// With which end, such as Failed.
    #[arg(long, value_parser = not_empty, help_heading = "Filter")]
    status: Option<String>,
    /// From when on.
    #[arg(long, value_name = "TIME", value_parser = time_or_day, help_heading = "Time")]
    start_time: Option<Timestamp>,
    /// Until when; now when not given.
    #[arg(long, value_name = "TIME", value_parser = time_or_day, help_heading = "Time")]
    end_time: Option<Timestamp>,
    /// How far back, such as 1d or 2h30m.
    #[arg(long, value_name = "SPAN", default_value = "6h", value_parser = span, help_heading = "Time")]
    offset: Duration,
    /// The most events to list.
    #[arg(long, default_value_t = 50, value_name = "N")]
    max_events: usize,
    /// Space-separated members to list of each event.
    #[arg(long, num_args = 1.., value_name = "MEMBER")]
    select: Vec<String>,
}

/// `1d2h30m`.
fn span(text: &str) -> Result<Duration, String> {
    let bad = || format!("'{text}' is not a span of time, such as 1d, 6h or 2h30m");
    let mut secs = 0u64;
    let mut number = String::new();
    for c in text.chars() {
        if c.is_ascii_digit() {
            number.push(c);
            continue;
        }
        let unit = match c.to_ascii_lowercase() {
            'd' => 24 * 3600,
            'h' => 3600,
            'm' => 60,
            's' => 1,
            _ => return Err(bad()),
        };
        let count: u64 = number.parse().map_err(|_| bad())?;
        secs = count.checked_mul(unit).and_then(|n| secs.checked_add(n)).ok_or_else(bad)?;
        number.clear();
    }
    if !number.is_empty() || secs == 0 || secs > 100 * 366 * 24 * 3600 {
        Err(bad())
    } else {
        Ok(Duration::from_secs(secs))
    }
}

pub(super) async fn run(ctx: &Context, args: MonitorArgs) -> Result<Output> {
    let MonitorCommand::ActivityLog(ActivityLogCommand::List(args)) = args.command;
    let back = |end: Timestamp| {
        let secs = i64::try_from(args.offset.as_secs()).unwrap_or(i64::MAX);
        Timestamp::from_unix_secs(end.unix_secs().saturating_sub(secs))
    };
    let (start, end) = match (args.start_time, args.end_time) {
        (Some(start), Some(end)) => (start, end),
        (Some(start), None) => (start, start.plus(args.offset)),
        (None, Some(end)) => (back(end), end),
        // What was done in this very second is over in the next.
        (None, None) => (back(Timestamp::now()), Timestamp::now().plus(Duration::from_secs(1))),
    };
    let mut filter = format!("eventTimestamp ge '{}' and eventTimestamp le '{}'", start.rfc3339(), end.rfc3339());
    let of = [
        ("correlationId", &args.correlation_id),
        ("resourceGroupName", &args.resource_group),
        ("resourceId", &args.resource_id),
        ("resourceProvider", &args.namespace),
    ];
    // As in az, the first of these that is given counts.
    if let Some((name, value)) = of.into_iter().find_map(|(n, v)| v.as_ref().map(|v| (n, v))) {
        filter.push_str(&format!(" and {name} eq {}", quoted(value)));
    }
    for (name, value) in [("caller", &args.caller), ("status", &args.status)] {
        if let Some(value) = value {
            filter.push_str(&format!(" and {name} eq {}", quoted(value)));
        }
    }
    let select = match args.select.is_empty() {
        true => String::new(),
        false => format!("&$select={}", segment(&args.select.join(","))),
    };
    signed_in(ctx, async |session: &Session| {
        let at =
            format!("{}/providers/Microsoft.Insights/eventtypes/management/values", session.arm.subscription_scope());
        let mut events = session.arm.all_of_with(&at, Some(&filter), &select).await?;
        events.truncate(args.max_events);
        Ok(Output::value(shape::each(events, shape::event)))
    })
    .await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans() {
        assert_eq!(span("1d2h30m"), Ok(Duration::from_secs(95_400)));
        assert_eq!(span("6h"), Ok(Duration::from_secs(21_600)));
        for bad in ["", "6", "h", "6x", "0h", "99999999999999999999d", "999999d9"] {
            assert!(span(bad).is_err(), "{bad}");
        }
    }
}
