//! Events: what happened, to standard error, one line each; and who listens to them.
//!
//! Lines are put into a buffer in memory and written by a thread of their own, so that a
//! request does not wait for a write to a pipe or disk. Warnings and errors are written at
//! once, by the thread that has them to say, after everything that came before them. A line
//! that has to do with a request says with which (`request_id`).

use std::fmt;
use std::io::{self, IsTerminal, Write};
use std::sync::OnceLock;

use anyhow::Context;
use portolan_service::ctx::request_id;
use tokio::runtime::Handle;
use tracing::{Event, Level, Metadata, Subscriber};
use tracing_subscriber::fmt::format::{Format, Full, Json, Writer};
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields, MakeWriter};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer};

use crate::otel;
use crate::settings::{LogFormat, Settings};
use crate::sink::{Buffer, Push};

/// Send events to standard error, and traces to the collector, as the settings say. Call
/// once for a process. `runtime` is where traces are sent from.
///
/// Errors: a filter or headers that cannot be read.
pub(crate) fn init(settings: &Settings, runtime: &Handle) -> anyhow::Result<()> {
    let filter =
        EnvFilter::try_new(&settings.log_filter).with_context(|| format!("log_filter {:?}", settings.log_filter))?;
    let writer = Lines(BUFFER.get_or_init(|| Buffer::start("log", io::stderr())).clone());
    let text = match settings.log_format {
        LogFormat::Text => true,
        LogFormat::Json => false,
        LogFormat::Auto => io::stderr().is_terminal(),
    };
    let events = tracing_subscriber::fmt::layer().with_writer(writer).with_ansi(text && io::stderr().is_terminal());
    let events = match text {
        true => events.event_format(WithRequest::Text(Format::default())).boxed(),
        false => {
            let format = Format::default().json().flatten_event(true).with_current_span(false).with_span_list(false);
            events
                .fmt_fields(tracing_subscriber::fmt::format::JsonFields::new())
                .event_format(WithRequest::Json(format))
                .boxed()
        }
    };
    let result = tracing_subscriber::registry()
        .with(otel::layer(settings, runtime)?)
        .with(events.with_filter(filter))
        .try_init();
    result.context("start logging")?;
    std::panic::set_hook(Box::new(|panic| {
        let at = panic.location().map(ToString::to_string).unwrap_or_default();
        let what = panic.payload_as_str().unwrap_or("(no message)");
        tracing::error!(target: "portolan::panic", at, what, "panic");
    }));
    Ok(())
}

/// Write everything logged so far; call before the process ends.
pub(crate) fn flush() {
    if let Some(buffer) = BUFFER.get() {
        buffer.flush();
    }
}

static BUFFER: OnceLock<Buffer> = OnceLock::new();

/// The usual formats, with the id of the request that is being worked for.
enum WithRequest {
    Text(Format<Full>),
    Json(Format<Json>),
}

impl<S, N> FormatEvent<S, N> for WithRequest
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(&self, ctx: &FmtContext<'_, S, N>, mut out: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        let Some(id) = request_id().filter(|_| event.metadata().fields().field("request_id").is_none()) else {
            return match self {
                WithRequest::Text(format) => format.format_event(ctx, out, event),
                WithRequest::Json(format) => format.format_event(ctx, out, event),
            };
        };
        let mut line = String::with_capacity(256);
        let inner = Writer::new(&mut line);
        match self {
            WithRequest::Text(format) => {
                format.format_event(ctx, inner, event)?;
                writeln!(out, "{} request_id={id}", line.trim_end_matches('\n'))
            }
            WithRequest::Json(format) => {
                format.format_event(ctx, inner, event)?;
                let object = line.trim_end_matches('\n');
                writeln!(out, "{},\"request_id\":\"{id}\"}}", object.strip_suffix('}').unwrap_or(object))
            }
        }
    }
}

/// The way of events to the buffer.
struct Lines(Buffer);

impl<'a> MakeWriter<'a> for Lines {
    type Writer = Line;

    fn make_writer(&'a self) -> Line {
        Line { buffer: self.0.clone(), how: Push::Now }
    }

    fn make_writer_for(&'a self, meta: &Metadata<'_>) -> Line {
        let how = if *meta.level() <= Level::WARN { Push::Now } else { Push::Soon };
        Line { buffer: self.0.clone(), how }
    }
}

/// One event being written.
struct Line {
    buffer: Buffer,
    how: Push,
}

impl Write for Line {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.buffer.push(bytes, self.how);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use parking_lot::Mutex;
    use portolan_service::ctx::with_request_id;

    use super::*;

    #[derive(Clone, Default)]
    struct Out(Arc<Mutex<Vec<u8>>>);

    impl Write for Out {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().extend_from_slice(bytes);
            Ok(bytes.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// What one event, told while a request is handled, and one outside, look like.
    async fn lines(json: bool) -> Vec<String> {
        let out = Out::default();
        let writer = {
            let out = out.clone();
            move || out.clone()
        };
        let layer = tracing_subscriber::fmt::layer().with_writer(writer).with_ansi(false);
        let layer = match json {
            true => {
                let format =
                    Format::default().json().flatten_event(true).with_current_span(false).with_span_list(false);
                let fields = tracing_subscriber::fmt::format::JsonFields::new();
                layer.fmt_fields(fields).event_format(WithRequest::Json(format)).boxed()
            }
            false => layer.event_format(WithRequest::Text(Format::default())).boxed(),
        };
        let subscriber = tracing_subscriber::registry().with(layer);
        let guard = tracing::subscriber::set_default(subscriber);
        with_request_id("id-1".into(), async { tracing::warn!(n = 7, "inside") }).await;
        tracing::warn!("outside");
        with_request_id("id-2".into(), async { tracing::warn!(request_id = "own", "named") }).await;
        drop(guard);
        String::from_utf8(out.0.lock().clone()).unwrap().lines().map(str::to_owned).collect()
    }

    #[tokio::test]
    async fn a_line_says_for_which_request_it_is() {
        let json = lines(true).await;
        let json: Vec<serde_json::Value> = json.iter().map(|l| serde_json::from_str(l).unwrap()).collect();
        assert_eq!((&json[0]["request_id"], &json[0]["n"]), (&"id-1".into(), &7.into()));
        assert!(json[1].get("request_id").is_none());
        assert_eq!(json[2]["request_id"], "own");
        let text = lines(false).await;
        assert!(text[0].ends_with("inside n=7 request_id=id-1"), "{}", text[0]);
        assert!(text[1].ends_with("outside") && !text[2].contains("id-2"), "{text:?}");
    }
}
