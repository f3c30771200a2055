//! Traces: what each request did, sent to an OpenTelemetry collector.
//!
//! The code says where a span begins and ends with `tracing`'s macros, under the target
//! [`TARGET`] and at the level TRACE, which no log shows unless somebody asks for it. Without
//! `otlp_endpoint` nobody listens to that target: a span costs one comparison. With it, a
//! layer makes OpenTelemetry spans of them, which wait in a queue of bounded length (what
//! does not fit is dropped) for a thread that sends them in batches (OTLP over HTTP,
//! protobuf). A collector that is slow or away costs traces and nothing else.

use std::collections::HashMap;
use std::pin::Pin;
use std::sync::OnceLock;
use std::time::Duration;

use anyhow::Context;
use bytes::Bytes;
use http::HeaderMap;
use opentelemetry::propagation::TextMapPropagator;
use opentelemetry::trace::{TraceContextExt, TracerProvider};
use opentelemetry_http::{HeaderExtractor, HttpClient, HttpError};
use opentelemetry_otlp::{Protocol, SpanExporter, WithExportConfig, WithHttpConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::propagation::TraceContextPropagator;
use opentelemetry_sdk::trace::{BatchConfigBuilder, BatchSpanProcessor, Sampler, SdkTracerProvider};
use portolan_api::post::Poster;
use portolan_api::transport::TransportOptions;
use tokio::runtime::Handle;
use tracing::Span;
use tracing_opentelemetry::OpenTelemetrySpanExt;
use tracing_subscriber::Layer;
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::registry::LookupSpan;

use crate::settings::{Settings, Value};

/// The target of every span that is part of a trace.
pub const TARGET: &str = "portolan::trace";
/// Spans waiting to be sent; further ones are dropped.
const QUEUE_SPANS_MAX: usize = 8_192;
/// Spans sent at a time.
const BATCH_SPANS_MAX: usize = 512;
/// How long a span waits for others before it is sent.
const BATCH_MILLIS_MAX: u64 = 1_000;
/// How long the collector may take for one batch.
const EXPORT_SECS_MAX: u64 = 10;
/// How long the end of the server waits for the last batches.
const SHUTDOWN_SECS_MAX: u64 = 5;
/// Attributes of one span; more are dropped.
const ATTRIBUTES_MAX: u32 = 32;
/// Lines of `otlp_headers_file`.
const HEADERS_MAX: usize = 32;

/// Base address of a collector.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OtlpEndpoint(String);

impl Value for OtlpEndpoint {
    const KIND: &'static str = "an address (http://HOST[:PORT] or https://…)";
    fn parse(text: &str) -> Result<OtlpEndpoint, String> {
        let url = portolan_api::transport::base_url(text).map_err(|_| format!("{text:?} is not {}", Self::KIND))?;
        Ok(OtlpEndpoint(url.as_str().trim_end_matches('/').to_owned()))
    }
}

/// A part of one: 0 to 1.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Ratio(pub f64);

impl Value for Ratio {
    const KIND: &'static str = "a number from 0 to 1";
    fn parse(text: &str) -> Result<Ratio, String> {
        match text.parse::<f64>() {
            Ok(ratio) if (0.0..=1.0).contains(&ratio) => Ok(Ratio(ratio)),
            _ => Err(format!("{text:?} is not {}", Self::KIND)),
        }
    }
}

static PROVIDER: OnceLock<SdkTracerProvider> = OnceLock::new();

/// The layer that makes traces, when the settings ask for them. `runtime` is where the
/// requests to the collector run.
///
/// Errors: headers that cannot be read.
pub(crate) fn layer<S>(settings: &Settings, runtime: &Handle) -> anyhow::Result<Option<impl Layer<S> + use<S>>>
where
    S: tracing::Subscriber + for<'span> LookupSpan<'span> + Send + Sync,
{
    let Some(OtlpEndpoint(base)) = &settings.otlp_endpoint else { return Ok(None) };
    let headers = match &settings.otlp_headers_file {
        Some(path) => {
            let text = std::fs::read_to_string(path)
                .with_context(|| format!("read {} (setting otlp_headers_file)", path.display()))?;
            // Its values are secrets: no error shows them.
            headers_of(&text).with_context(|| format!("{} (setting otlp_headers_file)", path.display()))?
        }
        None => HashMap::new(),
    };
    let poster = Poster::new(&TransportOptions::default()).context("set up the collector's client")?;
    let exporter = SpanExporter::builder()
        .with_http()
        .with_http_client(Collector { poster, runtime: runtime.clone() })
        .with_endpoint(format!("{base}/v1/traces"))
        .with_protocol(Protocol::HttpBinary)
        .with_timeout(Duration::from_secs(EXPORT_SECS_MAX))
        .with_headers(headers)
        .build()
        .context("set up the trace exporter")?;
    let batch = BatchConfigBuilder::default()
        .with_max_queue_size(QUEUE_SPANS_MAX)
        .with_max_export_batch_size(BATCH_SPANS_MAX)
        .with_scheduled_delay(Duration::from_millis(BATCH_MILLIS_MAX))
        .build();
    let resource = Resource::builder()
        .with_service_name(settings.otlp_service_name.clone())
        .with_attribute(opentelemetry::KeyValue::new("service.version", env!("CARGO_PKG_VERSION")))
        .build();
    let provider = SdkTracerProvider::builder()
        .with_span_processor(BatchSpanProcessor::builder(exporter).with_batch_config(batch).build())
        // A client that is traced says whether this request is; for the others it is chance.
        .with_sampler(Sampler::ParentBased(Box::new(Sampler::TraceIdRatioBased(settings.otlp_sample_ratio.0))))
        .with_max_attributes_per_span(ATTRIBUTES_MAX)
        .with_resource(resource)
        .build();
    let tracer = provider.tracer("portolan");
    let _ = PROVIDER.set(provider);
    let layer = tracing_opentelemetry::layer()
        .with_tracer(tracer)
        .with_location(false)
        .with_threads(false)
        .with_target(false)
        .with_level(false);
    Ok(Some(layer.with_filter(Targets::new().with_target(TARGET, LevelFilter::TRACE))))
}

/// Send what waits, for a few seconds at most. Blocks; the runtime must still run.
pub(crate) fn shutdown() {
    if let Some(provider) = PROVIDER.get()
        && let Err(why) = provider.shutdown_with_timeout(Duration::from_secs(SHUTDOWN_SECS_MAX))
    {
        tracing::warn!(%why, "the last traces were not sent");
    }
}

/// Make a request's span a child of the span that the client names (W3C Trace Context).
pub(crate) fn follow(span: &Span, headers: &HeaderMap) {
    let context = TraceContextPropagator::new().extract(&HeaderExtractor(headers));
    if context.span().span_context().is_valid() {
        // Fails only where no layer makes traces.
        let _ = span.set_parent(context);
    }
}

/// The trace that a client says its request belongs to: 32 hex digits of `traceparent`.
pub(crate) fn trace_id(headers: &HeaderMap) -> Option<&str> {
    let value = headers.get("traceparent")?.to_str().ok()?;
    let (version, rest) = value.split_once('-')?;
    let (id, _) = rest.split_once('-')?;
    let hex = |text: &str| text.bytes().all(|c| matches!(c, b'0'..=b'9' | b'a'..=b'f'));
    (version.len() == 2 && id.len() == 32 && hex(version) && hex(id) && id.bytes().any(|c| c != b'0')).then_some(id)
}

/// `name: value` on each line; empty lines and lines that begin with `#` say nothing.
fn headers_of(text: &str) -> anyhow::Result<HashMap<String, String>> {
    let mut headers = HashMap::new();
    for (n, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let (name, value) = line.split_once(':').with_context(|| format!("line {} is not `name: value`", n + 1))?;
        let (name, value) = (name.trim(), value.trim());
        http::HeaderName::try_from(name).ok().with_context(|| format!("line {}: not a header's name", n + 1))?;
        http::HeaderValue::try_from(value).ok().with_context(|| format!("line {}: not a header's value", n + 1))?;
        anyhow::ensure!(headers.len() < HEADERS_MAX, "more than {HEADERS_MAX} headers");
        headers.insert(name.to_ascii_lowercase(), value.to_owned());
    }
    Ok(headers)
}

/// The way to the collector. The exporter's thread has no runtime of its own: the request
/// runs in ours, and the thread waits for its end.
#[derive(Debug)]
struct Collector {
    poster: Poster,
    runtime: Handle,
}

impl HttpClient for Collector {
    fn send_bytes<'a, 'f>(
        &'a self,
        request: http::Request<Bytes>,
    ) -> Pin<Box<dyn Future<Output = Result<http::Response<Bytes>, HttpError>> + Send + 'f>>
    where
        'a: 'f,
        Self: 'f,
    {
        let poster = self.poster.clone();
        let task = self.runtime.spawn(async move { poster.send(request, Duration::from_secs(EXPORT_SECS_MAX)).await });
        Box::pin(async move { Ok(task.await??) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_of_traces() {
        assert_eq!(OtlpEndpoint::parse("http://c:4318/").unwrap().0, "http://c:4318");
        for bad in ["c:4318", "ftp://c", "http://c?x=1"] {
            assert!(OtlpEndpoint::parse(bad).is_err(), "{bad}");
        }
        assert_eq!(Ratio::parse("0.25"), Ok(Ratio(0.25)));
        for bad in ["-0.1", "1.1", "NaN", "x", ""] {
            assert!(Ratio::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn headers_are_read_and_their_values_never_shown() {
        let headers = headers_of("# for the collector\n\nAuthorization: Bearer a:b\nx-scope:  me \n").unwrap();
        assert_eq!((headers["authorization"].as_str(), headers["x-scope"].as_str()), ("Bearer a:b", "me"));
        for bad in ["SECRET", "a b: SECRET", "a: SECRET\u{1}"] {
            let why = format!("{:#}", headers_of(bad).unwrap_err());
            assert!(why.starts_with("line 1") && !why.contains("SECRET"), "{why}");
        }
        let many: String = (0..40).map(|n| format!("x-{n}: 1\n")).collect();
        assert!(headers_of(&many).is_err());
    }

    #[test]
    fn only_a_whole_traceparent_is_believed() {
        let of = |text: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert("traceparent", http::HeaderValue::from_static(text));
            trace_id(&headers).map(str::to_owned)
        };
        let id = "0af7651916cd43dd8448eb211c80319c";
        assert_eq!(of("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01").as_deref(), Some(id));
        for bad in [
            "",
            "00",
            "00-0af7651916cd43dd8448eb211c80319c",
            "00-00000000000000000000000000000000-b7ad6b7169203331-01",
            "00-0AF7651916CD43DD8448EB211C80319C-b7ad6b7169203331-01",
            "zz-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319\"-b7ad6b7169203331-01",
        ] {
            assert_eq!(of(bad), None, "{bad}");
        }
    }
}
