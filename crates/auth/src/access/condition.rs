//! Conditions of role assignments, version 2.0, on the names of repositories.
//!
//! ```text
//! ((!(ActionMatches{'Microsoft.ContainerRegistry/registries/repositories/content/read'}))
//!  OR
//!  (@Request[Microsoft.ContainerRegistry/registries/repositories:name] StringStartsWithIgnoreCase 'team/'))
//! ```
//!
//! Grammar (words in any case):
//!
//! ```text
//! any     = all { ( "OR" | "||" ) all }
//! all     = one { ( "AND" | "&&" ) one }
//! one     = ( "NOT" | "!" ) one | "(" any ")" | action | name | "Exists" attribute
//! action  = "ActionMatches" "{" text "}"                   the operation's name, * for any text
//! name    = attribute operator text
//!         | attribute each ":" operator "{" text { "," text } "}"
//! each    = "ForAnyOfAnyValues" | "ForAllOfAnyValues"      one of the texts fits
//!         | "ForAnyOfAllValues" | "ForAllOfAllValues"      every one does
//! operator= "String" [ "Not" ] ( "Equals" | "StartsWith" | "Like" ) [ "IgnoreCase" ]
//! attribute = "@Request[Microsoft.ContainerRegistry/registries/repositories:name]"
//! text    = "'" { any character but ' } "'"                \' for a ', \\ for a \
//! ```
//!
//! `Like` takes `*` for any text and `?` for any one character; a backslash before either, or
//! before another, takes it for what it is. Any other attribute or operator is refused when an
//! assignment is made, so that no condition is kept that nobody can decide.
//!
//! What is not about one repository (the catalog, the control plane) has no name. A comparison
//! with no name is neither true nor false, and neither is what depends on it; a condition holds
//! only where it is true. So a `NOT` cannot open what its condition did not think of.
//!
//! Source: Microsoft Learn, "Azure role assignment condition format and syntax".

use portolan_types::RepoName;

use super::role::matches;
use super::{Action, ActionSet};

/// Bytes of one condition.
pub const CONDITION_BYTES_MAX: usize = 8 * 1024;
/// How deep brackets and negations nest.
const DEPTH_MAX: usize = 32;

const ATTRIBUTE: &str = "Microsoft.ContainerRegistry/registries/repositories:name";

/// Why a condition was refused: what is wrong, and at which byte.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the condition is not valid at character {at}: {why}")]
pub struct ConditionError {
    /// Bytes before it.
    pub at: usize,
    /// What is wrong.
    pub why: String,
}

/// A condition, ready to be asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Condition(Part);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    Any(Vec<Part>),
    All(Vec<Part>),
    Not(Box<Part>),
    Action(ActionSet),
    HasName,
    Name(Comparison),
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Comparison {
    how: How,
    negated: bool,
    ignore_case: bool,
    /// Whether every text must fit, not one of them.
    every: bool,
    texts: Vec<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum How {
    Equals,
    StartsWith,
    Like,
}

impl Condition {
    /// Read a condition.
    pub fn parse(text: &str) -> Result<Condition, ConditionError> {
        if text.len() > CONDITION_BYTES_MAX {
            let why = format!("it may have {CONDITION_BYTES_MAX} bytes");
            return Err(ConditionError { at: CONDITION_BYTES_MAX, why });
        }
        let mut reader = Reader { text, at: 0, depth: 0 };
        let part = reader.any()?;
        reader.space();
        if reader.at < text.len() {
            return Err(reader.wrong("there is more than one condition, and no AND or OR between them"));
        }
        Ok(Condition(part))
    }

    /// Whether it lets `action` through, done to that repository or to none.
    pub fn holds(&self, action: Action, repository: Option<&RepoName>) -> bool {
        self.0.value(action, repository.map(RepoName::as_str)) == Some(true)
    }
}

impl Part {
    /// True, false, or neither.
    fn value(&self, action: Action, name: Option<&str>) -> Option<bool> {
        let join = |parts: &[Part], decisive: bool| {
            let mut sum = Some(!decisive);
            for part in parts {
                match part.value(action, name) {
                    Some(value) if value == decisive => return Some(decisive),
                    None => sum = None,
                    Some(_) => {}
                }
            }
            sum
        };
        match self {
            Part::Any(parts) => join(parts, true),
            Part::All(parts) => join(parts, false),
            Part::Not(part) => part.value(action, name).map(|value| !value),
            Part::Action(set) => Some(set.contains(action)),
            Part::HasName => Some(name.is_some()),
            Part::Name(comparison) => name.map(|name| comparison.holds(name)),
        }
    }
}

impl Comparison {
    fn holds(&self, name: &str) -> bool {
        let fits = |text: &String| self.fits(name, text) != self.negated;
        if self.every { self.texts.iter().all(fits) } else { self.texts.iter().any(fits) }
    }

    /// `text` is in lower case already if case does not count; names of repositories always are.
    fn fits(&self, name: &str, text: &str) -> bool {
        match self.how {
            How::Equals => name == text,
            How::StartsWith => name.starts_with(text),
            How::Like => like(text.as_bytes(), name.as_bytes()),
        }
    }
}

/// Whether `text` fits `pattern` with `*`, `?` and `\`; in as many steps as the product of the
/// lengths, at worst. Names of repositories are ASCII, so that a byte is a character.
fn like(pattern: &[u8], text: &[u8]) -> bool {
    let (mut p, mut t) = (0, 0);
    let mut retry = None;
    while t < text.len() {
        let (fits, next) = match pattern.get(p) {
            Some(b'*') => {
                retry = Some((p, t));
                p += 1;
                continue;
            }
            Some(b'?') => (true, p + 1),
            Some(b'\\') if p + 1 < pattern.len() => (pattern[p + 1] == text[t], p + 2),
            Some(c) => (*c == text[t], p + 1),
            None => (false, p),
        };
        if fits {
            p = next;
            t += 1;
        } else if let Some((star, from)) = retry {
            retry = Some((star, from + 1));
            p = star + 1;
            t = from + 1;
        } else {
            return false;
        }
    }
    pattern[p..].iter().all(|c| *c == b'*')
}

struct Reader<'a> {
    text: &'a str,
    at: usize,
    depth: usize,
}

type Read<T> = Result<T, ConditionError>;

impl<'a> Reader<'a> {
    fn wrong(&self, why: impl Into<String>) -> ConditionError {
        ConditionError { at: self.at, why: why.into() }
    }

    fn rest(&self) -> &'a str {
        &self.text[self.at..]
    }

    fn space(&mut self) {
        self.at = self.text.len() - self.rest().trim_start().len();
    }

    /// Take this sign, if it is next.
    fn sign(&mut self, sign: &str) -> bool {
        self.space();
        let is = self.rest().starts_with(sign);
        if is {
            self.at += sign.len();
        }
        is
    }

    fn expect(&mut self, sign: &str) -> Read<()> {
        if self.sign(sign) { Ok(()) } else { Err(self.wrong(format!("'{sign}' is missing"))) }
    }

    /// The letters and digits that are next.
    fn word(&mut self) -> &'a str {
        self.space();
        let rest = self.rest();
        &rest[..rest.bytes().take_while(u8::is_ascii_alphanumeric).count()]
    }

    /// Take this word, if it is next, in any case.
    fn keyword(&mut self, word: &str) -> bool {
        let is = self.word().eq_ignore_ascii_case(word);
        if is {
            self.at += word.len();
        }
        is
    }

    fn any(&mut self) -> Read<Part> {
        let mut parts = vec![self.all()?];
        while self.sign("||") || self.keyword("OR") {
            parts.push(self.all()?);
        }
        Ok(one_or(parts, Part::Any))
    }

    fn all(&mut self) -> Read<Part> {
        let mut parts = vec![self.one()?];
        while self.sign("&&") || self.keyword("AND") {
            parts.push(self.one()?);
        }
        Ok(one_or(parts, Part::All))
    }

    fn one(&mut self) -> Read<Part> {
        self.depth += 1;
        if self.depth > DEPTH_MAX {
            return Err(self.wrong(format!("it may nest {DEPTH_MAX} deep")));
        }
        let part = if self.sign("!") || self.keyword("NOT") {
            Part::Not(Box::new(self.one()?))
        } else if self.sign("(") {
            let part = self.any()?;
            self.expect(")")?;
            part
        } else if self.keyword("ActionMatches") {
            self.expect("{")?;
            let pattern = self.quoted()?;
            self.expect("}")?;
            let chosen: Vec<Action> =
                Action::ALL.iter().copied().filter(|a| matches(&pattern, a.operation())).collect();
            Part::Action(ActionSet::of(&chosen))
        } else if self.keyword("Exists") {
            self.attribute()?;
            Part::HasName
        } else {
            self.attribute()?;
            Part::Name(self.comparison()?)
        };
        self.depth -= 1;
        Ok(part)
    }

    fn attribute(&mut self) -> Read<()> {
        self.space();
        if !self.rest().starts_with('@') {
            return Err(self.wrong("a comparison, ActionMatches{…}, Exists, NOT or ( is missing"));
        }
        let end = self.rest().find(']').map_or(self.text.len(), |end| self.at + end + 1);
        let found = &self.text[self.at..end];
        let inside = found.strip_prefix('@').and_then(|f| f.strip_suffix(']')).and_then(|f| f.split_once('['));
        match inside {
            Some((from, name))
                if from.eq_ignore_ascii_case("Request") && name.trim().eq_ignore_ascii_case(ATTRIBUTE) =>
            {
                self.at = end;
                Ok(())
            }
            _ => Err(self.wrong(format!("the only attribute there is here is @Request[{ATTRIBUTE}]"))),
        }
    }

    fn comparison(&mut self) -> Read<Comparison> {
        let each = match self.word().to_ascii_lowercase().as_str() {
            "foranyofanyvalues" | "forallofanyvalues" => Some(false),
            "foranyofallvalues" | "forallofallvalues" => Some(true),
            _ => None,
        };
        if each.is_some() {
            self.at += self.word().len();
            self.expect(":")?;
        }
        let word = self.word();
        let (how, negated, ignore_case) = operator(&word.to_ascii_lowercase()).ok_or_else(|| {
            self.wrong(
                "the operator must be StringEquals, StringStartsWith or StringLike, with Not after String \
                 or IgnoreCase at its end if need be",
            )
        })?;
        self.at += word.len();
        let mut texts = Vec::new();
        if each.is_some() {
            self.expect("{")?;
            loop {
                texts.push(self.quoted()?);
                if !self.sign(",") {
                    break;
                }
            }
            self.expect("}")?;
        } else {
            texts.push(self.quoted()?);
        }
        if ignore_case {
            texts.iter_mut().for_each(|text| text.make_ascii_lowercase());
        }
        // In a pattern a backslash stays before what it takes the meaning from.
        if how != How::Like {
            for text in &mut texts {
                *text = unescape(text);
            }
        }
        Ok(Comparison { how, negated, ignore_case, every: each.unwrap_or(false), texts })
    }

    /// A text in single quotes, its backslashes still in it.
    fn quoted(&mut self) -> Read<String> {
        self.expect("'")?;
        let rest = self.rest();
        let mut escaped = false;
        for (at, c) in rest.char_indices() {
            match c {
                _ if escaped => escaped = false,
                '\\' => escaped = true,
                '\'' => {
                    self.at += at + 1;
                    return Ok(rest[..at].to_owned());
                }
                _ => {}
            }
        }
        Err(self.wrong("the text has no ' at its end"))
    }
}

fn unescape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        out.push(if c == '\\' { chars.next().unwrap_or(c) } else { c });
    }
    out
}

fn one_or(mut parts: Vec<Part>, join: fn(Vec<Part>) -> Part) -> Part {
    match parts.pop() {
        Some(only) if parts.is_empty() => only,
        Some(last) => {
            parts.push(last);
            join(parts)
        }
        None => join(parts),
    }
}

/// `stringnotequalsignorecase` → how, whether negated, whether case does not count.
fn operator(word: &str) -> Option<(How, bool, bool)> {
    let rest = word.strip_prefix("string")?;
    let (rest, ignore_case) = rest.strip_suffix("ignorecase").map_or((rest, false), |rest| (rest, true));
    let (rest, negated) = rest.strip_prefix("not").map_or((rest, false), |rest| (rest, true));
    let how = match rest {
        "equals" => How::Equals,
        "startswith" => How::StartsWith,
        "like" => How::Like,
        _ => return None,
    };
    Some((how, negated, ignore_case))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const NAME: &str = "@Request[Microsoft.ContainerRegistry/registries/repositories:name]";

    fn holds(condition: &str, name: &str) -> bool {
        let condition = condition.replace("@name", NAME);
        let repository = (!name.is_empty()).then(|| name.parse().unwrap());
        Condition::parse(&condition).unwrap().holds(Action::Pull, repository.as_ref())
    }

    #[test]
    fn names_are_compared() {
        for (condition, name, expected) in [
            ("@name StringEquals 'a/b'", "a/b", true),
            ("@name StringEquals 'a/b'", "a/bc", false),
            ("@name StringEquals 'A/b'", "a/b", false),
            ("@name StringEqualsIgnoreCase 'A/b'", "a/b", true),
            ("@name StringNotEquals 'a'", "b", true),
            ("@name StringNotEquals 'a'", "a", false),
            ("@name StringStartsWith 'team/'", "team/x", true),
            ("@name StringStartsWith 'team/'", "teams/x", false),
            ("@name StringStartsWithIgnoreCase 'TEAM/'", "team/x", true),
            ("@name StringNotStartsWith 'team/'", "other", true),
            ("@name StringLike 'team/*/x'", "team/a/b/x", true),
            ("@name StringLike 'team/?'", "team/ab", false),
            ("@name StringLike 'team/?'", "team/a", true),
            ("@name StringLike 'team/\\*'", "team/a", false),
            ("@name StringNotLike 'team/*'", "team/a", false),
            ("@name ForAnyOfAnyValues:StringEquals {'a', 'b'}", "b", true),
            ("@name ForAnyOfAnyValues:StringEquals {'a', 'b'}", "c", false),
            ("@name ForAllOfAllValues:StringNotEquals {'a', 'b'}", "c", true),
            ("@name ForAllOfAllValues:StringNotEquals {'a', 'b'}", "b", false),
            ("@name StringEquals 'a' OR @name StringEquals 'b' AND @name StringEquals 'c'", "a", true),
            ("(@name StringEquals 'a' OR @name StringEquals 'b') AND @name StringEquals 'c'", "a", false),
            ("@name StringEquals 'a' || @name StringEquals 'b'", "b", true),
            ("NOT @name StringEquals 'a'", "b", true),
            ("!(@name StringEquals 'a')", "a", false),
            ("Exists @name", "a", true),
            ("exists @NAME", "", false),
        ] {
            let condition = condition.replace("@NAME", &NAME.to_ascii_uppercase());
            assert_eq!(holds(&condition, name), expected, "{condition} for {name:?}");
        }
    }

    #[test]
    fn what_has_no_name_opens_nothing_by_negation() {
        for condition in [
            "@name StringEquals 'a'",
            "@name StringNotEquals 'a'",
            "!(@name StringEquals 'a')",
            "NOT (@name StringEquals 'a' AND @name StringEquals 'b')",
            "!(!(@name StringNotLike 'a'))",
        ] {
            assert!(!holds(condition, ""), "{condition}");
        }
        assert!(holds("@name StringEquals 'a' OR NOT Exists @name", ""), "it was thought of");
    }

    #[test]
    fn actions_guard_a_condition() {
        let read = "Microsoft.ContainerRegistry/registries/repositories/content/read";
        let text = format!("((!(ActionMatches{{'{read}'}})) OR ({NAME} StringEquals 'a'))");
        let condition = Condition::parse(&text).unwrap();
        let (a, b) = ("a".parse().unwrap(), "b".parse().unwrap());
        assert!(condition.holds(Action::Pull, Some(&a)) && !condition.holds(Action::Pull, Some(&b)));
        assert!(condition.holds(Action::Push, Some(&b)), "it says nothing of pushes");
        assert!(condition.holds(Action::CatalogList, None));
        let all = Condition::parse("ActionMatches{'microsoft.containerregistry/registries/repositories/*'}").unwrap();
        assert!(all.holds(Action::Delete, None) && !all.holds(Action::RegistryRead, None));
    }

    #[test]
    fn azures_own_example_is_read() {
        let text = "\n(\n (\n  !(ActionMatches{'Microsoft.ContainerRegistry/registries/repositories/content/read'})\n  \
                    AND\n  !(ActionMatches{'Microsoft.ContainerRegistry/registries/repositories/metadata/read'})\n )\n OR \n (\n  \
                    @Request[Microsoft.ContainerRegistry/registries/repositories:name] StringEqualsIgnoreCase 'hello-world'\n )\n)\n";
        let condition = Condition::parse(text).unwrap();
        assert!(condition.holds(Action::Pull, Some(&"hello-world".parse().unwrap())));
        assert!(!condition.holds(Action::MetadataRead, Some(&"hello".parse().unwrap())));
    }

    #[test]
    fn what_is_no_condition_is_refused() {
        for bad in [
            "",
            " ",
            "true",
            "()",
            "(@name StringEquals 'a'",
            "@name StringEquals 'a')",
            "@name StringEquals 'a' @name StringEquals 'b'",
            "@name StringEquals 'a' OR",
            "@name StringEquals a",
            "@name StringEquals \"a\"",
            "@name StringEquals 'a",
            "@name StringEquals {'a','b'}",
            "@name ForAnyOfAnyValues:StringEquals 'a'",
            "@name ForAnyOfAnyValues:StringEquals {}",
            "@name ForAnyOfAnyValues:StringEquals {'a',}",
            "@name StringMatches 'a'",
            "@name NumericEquals '1'",
            "@name ORStringEquals 'a'",
            "@Resource[Microsoft.ContainerRegistry/registries/repositories:name] StringEquals 'a'",
            "@Request[Microsoft.Authorization/roleAssignments:PrincipalId] StringEquals 'a'",
            "@Request[ StringEquals 'a'",
            "@Request",
            "ActionMatches{a}",
            "ActionMatches",
            "SubOperationMatches{'a'}",
            "NOT",
            "Exists 'a'",
        ] {
            let text = bad.replace("@name", NAME);
            assert!(Condition::parse(&text).is_err(), "{bad}");
        }
    }

    #[test]
    fn conditions_are_bounded() {
        let deep = |n: usize| format!("{}{NAME} StringEquals 'a'{}", "(".repeat(n), ")".repeat(n));
        Condition::parse(&deep(DEPTH_MAX - 1)).unwrap();
        assert!(Condition::parse(&deep(DEPTH_MAX)).unwrap_err().why.contains("deep"));
        assert!(Condition::parse(&"!".repeat(DEPTH_MAX + 1)).is_err());
        let long = format!("{NAME} StringEquals '{}'", "a".repeat(CONDITION_BYTES_MAX));
        assert!(Condition::parse(&long).is_err());
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused(
            text in "\\PC{0,80}",
            inside in "(!|\\(|\\)|OR |AND |NOT |ActionMatches\\{'\\*'\\}|Exists |@Request\\[|'|\\\\){0,20}",
        ) {
            let _ = Condition::parse(&text);
            let _ = Condition::parse(&inside);
        }

        #[test]
        fn like_says_what_a_slow_reading_says(pattern in "[ab*?]{0,8}", text in "[ab]{0,8}") {
            fn slow(p: &[u8], t: &[u8]) -> bool {
                match (p.split_first(), t.split_first()) {
                    (None, None) => true,
                    (Some((b'*', rest)), _) if slow(rest, t) => true,
                    (Some((b'*', _)), Some((_, t))) => slow(p, t),
                    (Some((c, p)), Some((d, t))) => (*c == b'?' || c == d) && slow(p, t),
                    _ => false,
                }
            }
            prop_assert_eq!(like(pattern.as_bytes(), text.as_bytes()), slow(pattern.as_bytes(), text.as_bytes()));
        }
    }
}
