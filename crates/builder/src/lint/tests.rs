use super::*;
use crate::error::Source;

/// The findings that the text alone gives, with what `# check=` says.
fn found(text: &str) -> Vec<String> {
    let file = crate::parse::parse(text.as_bytes()).and_then(crate::instruct::read);
    match file {
        Ok(file) => file.checks.filter(file.findings.iter().cloned()).iter().map(Finding::sentence).collect(),
        Err(fault) => vec![Source::new("Dockerfile", text).sentence(&fault)],
    }
}

#[track_caller]
fn check(text: &str, expected: &[&str]) {
    assert_eq!(found(text), expected, "{text}");
}

#[test]
fn every_rule_has_a_name_a_sentence_and_a_page() {
    for rule in Rule::ALL {
        assert!(rule.description().len() > 10, "{rule:?}");
        let url = rule.url();
        assert!(url.ends_with('/') && !url.contains(|c: char| c.is_uppercase()), "{url}");
    }
    assert_eq!(Rule::JSONArgsRecommended.url(), "https://docs.docker.com/go/dockerfile/rule/json-args-recommended/");
    assert_eq!(Rule::SecretsUsedInArgOrEnv.name(), "SecretsUsedInArgOrEnv");
    assert_eq!(Rule::ALL.len(), 22);
}

#[test]
fn names_of_stages() {
    check("FROM a AS Build", &["StageNameCasing: Stage name 'Build' should be lowercase (line 1)"]);
    check("FROM a as b", &["FromAsCasing: 'as' and 'FROM' keywords' casing do not match (line 1)"]);
    check("from a as b", &[]);
    check(
        "FROM a AS b\nFROM c AS b",
        &["DuplicateStageName: Duplicate stage name \"b\", stage names should be unique (line 2)"],
    );
    check(
        "FROM a AS scratch",
        &["ReservedStageName: Stage name should not use the same name as reserved stage \"scratch\" (line 1)"],
    );
}

#[test]
fn casing_of_keywords() {
    check(
        "FROM a\nrun x\nCMD [\"x\"]",
        &[
            "ConsistentInstructionCasing: Command 'run' should match the case of the command majority (uppercase) (line 2)",
        ],
    );
    check(
        "from a\nrun x\nCMD [\"x\"]",
        &[
            "ConsistentInstructionCasing: Command 'CMD' should match the case of the command majority (lowercase) (line 3)",
        ],
    );
    check(
        "FROM a\nRun x\nRUN y",
        &[
            "ConsistentInstructionCasing: Command 'Run' should match the case of the command majority (uppercase) (line 2)",
        ],
    );
    // A global ARG is not counted.
    check("arg X=1\nFROM a\nRUN y", &[]);
}

#[test]
fn old_spellings() {
    check(
        "FROM a\nMAINTAINER b",
        &["MaintainerDeprecated: Maintainer instruction is deprecated in favor of using label (line 2)"],
    );
    check(
        "FROM a\nENV k v\nENV a=1\nLABEL k v",
        &[
            "LegacyKeyValueFormat: \"ENV key=value\" should be used instead of legacy \"ENV key value\" format (line 2)",
            "LegacyKeyValueFormat: \"LABEL key=value\" should be used instead of legacy \"LABEL key value\" format (line 4)",
        ],
    );
    check("FROM a\nRUN x \\\n\n  y", &["NoEmptyContinuation: Empty continuation line (line 4)"]);
}

#[test]
fn platforms_of_stages() {
    check(
        "FROM --platform=$TARGETPLATFORM a",
        &[
            "RedundantTargetPlatform: Setting platform to predefined $TARGETPLATFORM in FROM is redundant as this is the default behavior (line 1)",
        ],
    );
    check(
        "FROM --platform=linux/amd64 a AS b",
        &[
            "FromPlatformFlagConstDisallowed: FROM --platform flag should not use constant value \"linux/amd64\" (line 1)",
        ],
    );
    check("FROM --platform=linux/amd64 a AS build_amd64\nFROM --platform=$BUILDPLATFORM a", &[]);
}

#[test]
fn descriptions_are_looked_at_when_asked_for() {
    let text = "# something\nFROM a AS b\n# V is a version\nARG V=1\n# not it\nARG W=1\n\n# apart\n\nARG X";
    check(text, &[]);
    check(
        &format!("# check=experimental=InvalidDefinitionDescription\n{text}"),
        &[
            "InvalidDefinitionDescription: Comment for FROM should follow the format: `# b <description>` (line 3)",
            "InvalidDefinitionDescription: Comment for ARG should follow the format: `# W <description>` (line 7)",
        ],
    );
}

#[test]
fn what_the_file_says_of_checks() {
    let body = "FROM a as B\nMAINTAINER x";
    assert_eq!(found(body).len(), 3);
    check(
        &format!("# check=skip=FromAsCasing,StageNameCasing\n{body}"),
        &["MaintainerDeprecated: Maintainer instruction is deprecated in favor of using label (line 3)"],
    );
    check(&format!("# check=skip=all;error=true\n{body}"), &[]);
    // Names are taken as they are written.
    assert_eq!(found(&format!("# check=skip=fromascasing\n{body}")).len(), 3);
    check(
        "# check=skip\nFROM a",
        &[
            "Dockerfile:1:9: the check option \"skip\" has no value (write # check=skip=<name>,<name>;error=true, or # check=skip=all)",
        ],
    );
    check(
        "# check=error=maybe\nFROM a",
        &[
            "Dockerfile:1:9: the check option error=maybe is neither true nor false (write # check=skip=<name>,<name>;error=true, or # check=skip=all)",
        ],
    );
    assert!(Checks::parse(&"x".repeat(5000)).is_err());
}

#[test]
fn findings_end_the_build_when_the_file_says_so() {
    let text = "# check=error=true\nFROM a as b\nMAINTAINER x\nMAINTAINER y";
    let file = crate::parse::parse(text.as_bytes()).and_then(crate::instruct::read).unwrap();
    let findings = file.checks.filter(file.findings.clone());
    let fault = file.checks.fault(&findings).unwrap();
    assert_eq!(fault.message, "lint violation found for rules: FromAsCasing, MaintainerDeprecated");
    assert_eq!(file.checks.fault(&[]), None);
    assert_eq!(Checks::default().fault(&findings), None);
}

#[test]
fn names_that_say_secret() {
    for name in
        ["PASSWORD", "db_password", "GITHUB_TOKEN", "secret_message", "AUTH", "api_key", "AWS_SECRET_ACCESS_KEY"]
    {
        assert!(is_secret_name(name), "{name}");
    }
    for name in ["MONKEY", "KEYBOARD", "PUBLIC_KEY", "authorize", "TOKENS", "x"] {
        assert!(!is_secret_name(name), "{name}");
    }
}
