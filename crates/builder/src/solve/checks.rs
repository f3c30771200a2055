//! What build checks have found, told or, where the file asks for it, held against the build.

use super::log::Log;
use super::plan::{Planned, Planner};
use super::shared::{Common, Part};
use crate::cancel::Cancel;
use crate::error::{BuildError, Fault, Source, Span};
use crate::event::Event;
use crate::graph::{Globals, Graph};
use crate::instruct::File;
use crate::lint::{Checks, Finding, Warning};
use crate::{BuildRequest, Engine, instruct, parse};

/// Build arguments of BuildKit that stand for a parser directive.
const CHECK_ARG: &str = "BUILDKIT_DOCKERFILE_CHECK";
const SYNTAX_ARG: &str = "BUILDKIT_SYNTAX";

fn build_arg<'a>(request: &'a BuildRequest, name: &str) -> Option<&'a str> {
    request.build_args.iter().rev().find(|(n, _)| n == name).map(|(_, v)| v.as_str()).filter(|v| !v.is_empty())
}

/// Whether a build argument turns something on.
pub(super) fn truth(request: &BuildRequest, name: &str) -> bool {
    matches!(build_arg(request, name), Some("1" | "t" | "T" | "true" | "True" | "TRUE"))
}

/// Read the Dockerfile, and what build arguments say in the place of its directives.
pub(super) fn read(request: &BuildRequest) -> Result<File, Fault> {
    if let Some(image) = build_arg(request, SYNTAX_ARG)
        && !parse::is_builtin_syntax(image)
    {
        return Err(parse::foreign_syntax(Span { first: 1, last: 1 }, image));
    }
    let mut file = parse::parse(&request.dockerfile).and_then(instruct::read)?;
    crate::named::add(&mut file, &request.named_contexts);
    if let Some(text) = build_arg(request, CHECK_ARG) {
        file.checks = Checks::parse(text)
            .map_err(|why| Fault::new(Span { first: 1, last: 1 }, format!("--build-arg {CHECK_ARG}: {why}")))?;
    }
    Ok(file)
}

/// All findings that count.
fn findings(file: &File, graph: &Graph, planned: &Planned) -> Vec<Finding> {
    let all = file.findings.iter().chain(&graph.findings).cloned().chain(planned.findings());
    file.checks.filter(all)
}

/// Tell what was found; where the file says `error=true` it ends the build.
pub(super) fn report(
    file: &File,
    graph: &Graph,
    planned: &Planned,
    source: &Source,
    log: &Log<'_>,
) -> Result<(), BuildError> {
    let findings = findings(file, graph, planned);
    for finding in &findings {
        log.warning(&finding.sentence());
    }
    file.checks.fault(&findings).map_or(Ok(()), |fault| Err(source.error(&fault)))
}

/// Only check: fetch what the checks need to know of base images, run and copy nothing.
pub(crate) fn check(
    engine: &Engine,
    request: &BuildRequest,
    events: &(dyn Fn(Event) + Sync),
    cancel: &Cancel,
) -> Result<Vec<Warning>, BuildError> {
    let log = Log::new(events);
    let source = Source::new(&request.dockerfile_name, &String::from_utf8_lossy(&request.dockerfile));
    let fault = |fault| source.error(&fault);
    let file = read(request).map_err(fault)?;
    let arg = |name: &str| request.build_args.iter().rev().find(|(n, _)| n == name).map(|(_, v)| v.clone());
    let target = request.target.as_deref().filter(|t| !t.is_empty());
    let globals = Globals::new(&file, &request.platform, target, &arg).map_err(fault)?;
    let graph = Graph::new(&file, &globals, &request.platform, target).map_err(fault)?;
    let common = Common::new(engine, request, &source, &log, &file);
    let part = Part { number: 0, platform: &request.platform, many: false };
    let planned = Planner::new(&common, part, &graph, &globals, cancel)?.only_checks().plan()?;
    let warning = |finding: Finding| Warning {
        rule: finding.rule,
        line: finding.span.first,
        excerpt: source.excerpt(finding.span),
        message: finding.message,
    };
    Ok(findings(&file, &graph, &planned).into_iter().map(warning).collect())
}
