//! `--check`: what is wrong with a Dockerfile, and no build. The log has it in docker's shape.

use portolan_builder::lint::Warning;
use portolan_builder::{BuildRequest, Cancel, Engine};
use portolan_tasks::RunLog;

use super::run::Trouble;
use super::tell::Teller;

/// Check the Dockerfile of `request`. As in docker, what is found fails the run.
pub(super) fn check(engine: &Engine, request: &BuildRequest, log: &RunLog, stop: &Cancel) -> Result<(), Trouble> {
    let teller = Teller::new(log);
    let found = engine.check(request, &|event| teller.event(&event), stop).map_err(|error| teller.failed(error))?;
    log.line(&report(&found));
    match found.len() {
        0 => Ok(()),
        n => Err(Trouble::Order(summary(n))),
    }
}

fn summary(count: usize) -> String {
    match count {
        0 => "Check complete, no warnings found.".to_owned(),
        1 => "Check complete, 1 warning has been found!".to_owned(),
        n => format!("Check complete, {n} warnings have been found!"),
    }
}

fn report(found: &[Warning]) -> String {
    let mut text = summary(found.len());
    for warning in found {
        let rule = warning.rule;
        text.push_str(&format!("\n\nWARNING: {} - {}\n{}\n", rule.name(), rule.url(), rule.description()));
        text.push_str(&format!("{}\n{}", warning.message, warning.excerpt));
    }
    text
}

#[cfg(test)]
mod tests {
    use portolan_builder::lint::Rule;

    use super::*;

    #[test]
    fn a_report() {
        assert_eq!(report(&[]), "Check complete, no warnings found.");
        let warning = Warning {
            rule: Rule::StageNameCasing,
            message: "Stage name 'A' should be lowercase".into(),
            line: 1,
            excerpt: "Dockerfile:1\n   1 | >>> FROM x AS A".into(),
        };
        let text = report(&[warning.clone(), warning]);
        assert!(text.starts_with("Check complete, 2 warnings have been found!\n\nWARNING: StageNameCasing - https://"));
        assert!(text.ends_with("Stage name 'A' should be lowercase\nDockerfile:1\n   1 | >>> FROM x AS A"), "{text}");
    }
}
