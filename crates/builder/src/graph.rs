//! Which stage stands on what: names, numbers and images resolved, the stages that a target
//! reaches found, before anything is fetched or run.

use std::collections::{BTreeSet, HashMap};

use portolan_types::{ImageRef, Platform};

use crate::error::{Fault, Span, suggest};
use crate::expand::Lexer;
use crate::instruct::{Command, File};
use crate::lint::{Finding, Rule};
use crate::{named, parse};

/// More stages than any Dockerfile has; bounds threads and recursion.
const STAGES_MAX: usize = 256;

/// What a stage is built on or copies from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Origin {
    /// Nothing.
    Scratch,
    /// An image, for the stage's platform.
    Image(ImageRef),
    /// Another stage of the file.
    Stage(usize),
    /// The files of a named context, by its number.
    Files(usize),
}

/// The stages of a file, resolved.
#[derive(Debug)]
pub(crate) struct Graph {
    /// For each stage, what `FROM` names.
    pub(crate) bases: Vec<Origin>,
    /// For each stage, what it is built for.
    pub(crate) platforms: Vec<Platform>,
    /// For each stage, what the log calls it; empty when the file has one stage only.
    pub(crate) labels: Vec<String>,
    /// The stage to build.
    pub(crate) target: usize,
    names: HashMap<String, usize>,
    /// What the build's contexts are called, and what they are.
    contexts: Vec<(String, Origin)>,
    /// Stages that the file itself has.
    own: usize,
    /// What `FROM` lines probably do not mean.
    pub(crate) findings: Vec<Finding>,
}

/// Values of variables outside the stages.
#[derive(Clone, Debug, Default)]
pub(crate) struct Globals(Vec<(String, String)>);

impl Globals {
    pub(crate) fn get(&self, name: &str) -> Option<String> {
        self.0.iter().rev().find(|(n, _)| n == name).map(|(_, v)| v.clone())
    }

    fn set(&mut self, name: &str, value: String) {
        self.0.push((name.to_owned(), value));
    }

    /// The automatic variables, then the file's own global `ARG`s under the given build
    /// arguments.
    pub(crate) fn new(
        file: &File,
        platform: &Platform,
        target: Option<&str>,
        build_arg: &dyn Fn(&str) -> Option<String>,
    ) -> Result<Globals, Fault> {
        let mut globals = Globals::default();
        for (prefix, platform) in [("BUILD", &Platform::host()), ("TARGET", platform)] {
            globals.set(&format!("{prefix}PLATFORM"), platform.to_string());
            globals.set(&format!("{prefix}OS"), platform.os.clone());
            globals.set(&format!("{prefix}ARCH"), platform.architecture.clone());
            globals.set(&format!("{prefix}VARIANT"), platform.variant.clone().unwrap_or_default());
        }
        let last =
            file.stages.get(file.own_stages().saturating_sub(1)).and_then(|s| s.name.as_deref()).unwrap_or("default");
        globals.set("TARGETSTAGE", target.unwrap_or(last).to_owned());
        // The automatic ones can be set from outside too.
        for (name, value) in &mut globals.0 {
            if let Some(given) = build_arg(name) {
                *value = given;
            }
        }
        let lexer = Lexer::new(file.escape);
        for instruction in &file.global_args {
            let Command::Arg(args) = &instruction.command else { continue };
            for (name, default) in args {
                let value = match (build_arg(name), default) {
                    (Some(given), _) => given,
                    (None, Some(default)) => lexer
                        .word(default, &|n| globals.get(n))
                        .map_err(|e| Fault::new(instruction.span, e.to_string()))?,
                    (None, None) => continue,
                };
                globals.set(name, value);
            }
        }
        Ok(globals)
    }
}

impl Graph {
    pub(crate) fn new(
        file: &File,
        globals: &Globals,
        platform: &Platform,
        target: Option<&str>,
    ) -> Result<Graph, Fault> {
        if file.stages.len() > STAGES_MAX {
            return Err(Fault::new(file.stages[STAGES_MAX].span, format!("more than {STAGES_MAX} stages")));
        }
        let mut graph = Graph {
            bases: Vec::new(),
            platforms: Vec::new(),
            labels: Vec::new(),
            target: file.own_stages().saturating_sub(1),
            contexts: file.contexts.clone(),
            own: file.own_stages(),
            names: HashMap::new(),
            findings: Vec::new(),
        };
        // As the file has it alone, without build arguments.
        let defaults = Globals::new(file, platform, target, &|_| None).unwrap_or_default();
        let lexer = Lexer::new(file.escape);
        for (index, stage) in file.stages.iter().enumerate() {
            let mut unset = Vec::new();
            let mut expand = |text: &str, what: &str| {
                let value = lexer
                    .word_noting(text, &|n| globals.get(n), &mut unset)
                    .map_err(|e| Fault::new(stage.span, e.to_string()).at(text))?;
                if value.trim().is_empty() {
                    return Err(Fault::new(stage.span, format!("{what} `{text}` is empty once expanded"))
                        .at(text)
                        .hint("give the variable a default with ARG before the first FROM, or pass --build-arg"));
                }
                Ok(value)
            };
            let base = expand(&stage.base, "the image name")?;
            let stage_platform = match &stage.platform {
                Some(text) => {
                    let value = expand(text, "the platform")?;
                    Some(value.parse::<Platform>().map_err(|e| Fault::new(stage.span, e.to_string()).at(text))?)
                }
                None => None,
            };
            for name in unset {
                let mut message = format!("FROM argument '{name}' is not declared");
                if let Some(meant) = suggest(&name, globals.0.iter().map(|(n, _)| n.as_str())) {
                    message.push_str(&format!(" (did you mean {meant}?)"));
                }
                graph.findings.push(Finding::new(Rule::UndefinedArgInFrom, stage.span, message));
            }
            if stage.base.contains('$') {
                let alone = lexer.word(&stage.base, &|n| defaults.get(n)).unwrap_or_default();
                if !graph.names.contains_key(&alone.to_lowercase()) && alone.parse::<ImageRef>().is_err() {
                    let message =
                        format!("Default value for ARG {} results in empty or invalid base image name", stage.base);
                    graph.findings.push(Finding::new(Rule::InvalidDefaultArgInFrom, stage.span, message));
                }
            }
            let origin = match (graph.context(&base), graph.names.get(&base.to_lowercase())) {
                // Whatever a stage is called, this is the empty image.
                _ if base == "scratch" => Origin::Scratch,
                (Some(context), _) => context,
                (None, Some(&earlier)) => Origin::Stage(earlier),
                (None, None) => Origin::Image(graph.image(&base, stage.span).map_err(|fault| fault.at(&stage.base))?),
            };
            graph.platforms.push(match (&origin, stage_platform) {
                // A stage on a stage is for what that one is for, whatever it says.
                (Origin::Stage(earlier), _) => graph.platforms.get(*earlier).unwrap_or(platform).clone(),
                (_, Some(own)) => own,
                (_, None) => platform.clone(),
            });
            graph.bases.push(origin);
            graph.labels.push(match &stage.name {
                _ if index >= file.own_stages() => graph.context_label(index),
                _ if file.own_stages() == 1 => String::new(),
                Some(name) => name.clone(),
                None => format!("stage-{index}"),
            });
            if let Some(name) = &stage.name {
                graph.names.insert(name.clone(), index);
            }
        }
        if let Some(target) = target.filter(|t| !t.is_empty()) {
            graph.target = graph.find(target).ok_or_else(|| {
                let fault = Fault::new(Span { first: 1, last: 1 }, format!("there is no stage {target:?} to build"));
                match suggest(target, graph.names.keys().map(String::as_str)) {
                    Some(meant) => fault.hint(format!("did you mean {meant}?")),
                    None if graph.names.is_empty() => fault.hint("no stage has a name; write FROM … AS <name>"),
                    None => {
                        let names: BTreeSet<&str> = graph.names.keys().map(String::as_str).collect();
                        fault.hint(format!("the file has {}", names.into_iter().collect::<Vec<_>>().join(", ")))
                    }
                }
            })?;
        }
        Ok(graph)
    }

    /// The build's context that a name means.
    fn context(&self, name: &str) -> Option<Origin> {
        self.contexts.iter().rev().find(|(context, _)| named::is_meant(context, name)).map(|(_, origin)| origin.clone())
    }

    fn context_label(&self, stage: usize) -> String {
        let is = |(_, origin): &&(String, Origin)| *origin == Origin::Stage(stage);
        self.contexts.iter().find(is).map_or_else(String::new, |(name, _)| format!("context {name}"))
    }

    fn find(&self, name: &str) -> Option<usize> {
        match self.names.get(&name.to_lowercase()) {
            Some(index) => Some(*index),
            None => name.parse().ok().filter(|index| *index < self.own),
        }
    }

    fn image(&self, name: &str, span: Span) -> Result<ImageRef, Fault> {
        name.parse().map_err(|e| {
            let fault = Fault::new(span, format!("{name:?} is neither a stage nor an image: {e}"));
            match suggest(name, self.names.keys().map(String::as_str)) {
                Some(meant) => fault.hint(format!("did you mean the stage {meant}?")),
                None => fault,
            }
        })
    }

    /// What `COPY --from=<from>` names.
    pub(crate) fn source(&self, from: &str, span: Span) -> Result<Origin, Fault> {
        if from.contains('$') {
            return Err(Fault::new(span, "--from cannot have variables")
                .at(from)
                .hint("name the image in a stage of its own, FROM ${IMAGE} AS <name>, and copy from that"));
        }
        if from.bytes().all(|b| b.is_ascii_digit()) {
            return match from.parse().ok().filter(|index: &usize| *index < self.own) {
                Some(index) => Ok(Origin::Stage(index)),
                None => Err(Fault::new(span, format!("there is no stage number {from}"))
                    .at(&format!("from={from}"))
                    .hint(format!("the file has {} stages, counted from 0", self.own))),
            };
        }
        if let Some(number) = named::number(from) {
            return Ok(Origin::Files(number));
        }
        match (self.context(from), self.names.get(&from.to_lowercase())) {
            _ if from == "scratch" => Ok(Origin::Scratch),
            (Some(context), _) => Ok(context),
            (None, Some(index)) => Ok(Origin::Stage(*index)),
            (None, None) => self.image(from, span).map(Origin::Image).map_err(|fault| fault.at(from)),
        }
    }

    /// A stage and those that it needs, as far as the file itself tells, each after those it
    /// stands on. (A base image's `ONBUILD` triggers can add some later.)
    pub(crate) fn reachable(&self, from: usize, file: &File) -> Result<Vec<usize>, Fault> {
        #[derive(Clone, Copy, PartialEq)]
        enum Mark {
            New,
            Open,
            Done,
        }
        let mut marks = vec![Mark::New; self.bases.len()];
        let mut order = Vec::new();
        // Depth first with an own stack: (stage, its origins, how many were followed).
        let mut stack = vec![(from, self.origins(from, file)?, 0)];
        marks[from] = Mark::Open;
        while let Some((stage, origins, followed)) = stack.last_mut() {
            let stage = *stage;
            let Some((next, span)) = origins.get(*followed).copied() else {
                marks[stage] = Mark::Done;
                order.push(stage);
                stack.pop();
                continue;
            };
            *followed += 1;
            match marks[next] {
                Mark::Done => {}
                Mark::New => {
                    marks[next] = Mark::Open;
                    stack.push((next, self.origins(next, file)?, 0));
                }
                Mark::Open => return Err(self.cycle(next, span, stack.iter().map(|(stage, ..)| *stage))),
            }
        }
        Ok(order)
    }

    /// The fault of stages that need each other; `open` are those under way, outermost first.
    pub(crate) fn cycle(&self, stage: usize, span: Span, open: impl Iterator<Item = usize>) -> Fault {
        let label = |i: usize| match self.labels[i].as_str() {
            "" => "the stage".to_owned(),
            label => label.to_owned(),
        };
        let mut ring: Vec<String> = open.skip_while(|s| *s != stage).map(label).collect();
        if ring.len() == 1 {
            return Fault::new(span, "a stage cannot copy from itself");
        }
        ring.push(label(stage));
        Fault::new(span, format!("stages need each other: {}", ring.join(" needs ")))
    }

    /// The stages that a stage stands on or copies from, and where it says so.
    fn origins(&self, stage: usize, file: &File) -> Result<Vec<(usize, Span)>, Fault> {
        let mut out = Vec::new();
        let mut copies = |command: &Command, span| -> Result<(), Fault> {
            for from in command.origins() {
                if let Origin::Stage(index) = self.source(from, span)? {
                    out.push((index, span));
                }
            }
            Ok(())
        };
        let own = &file.stages[stage];
        if let Origin::Stage(base) = self.bases[stage] {
            for instruction in &file.stages[base].instructions {
                if let Command::Onbuild(text) = &instruction.command {
                    let node = parse::parse_trigger(text, file.escape, own.span)?;
                    copies(&crate::instruct::instruction(&node, file.escape)?.command, own.span)?;
                }
            }
        }
        for instruction in &own.instructions {
            copies(&instruction.command, instruction.span)?;
        }
        if let Origin::Stage(base) = self.bases[stage] {
            out.insert(0, (base, own.span));
        }
        Ok(out)
    }

    /// The images that these stages need, each with its platform and a place to blame, each
    /// once.
    pub(crate) fn images(&self, stages: &[usize], file: &File) -> Result<Vec<(ImageRef, Platform, Span)>, Fault> {
        let mut out: Vec<(ImageRef, Platform, Span)> = Vec::new();
        let mut add = |origin: &Origin, platform: &Platform, span| {
            if let Origin::Image(image) = origin
                && !out.iter().any(|(i, p, _)| i == image && p == platform)
            {
                out.push((image.clone(), platform.clone(), span));
            }
        };
        for &stage in stages {
            let platform = &self.platforms[stage];
            add(&self.bases[stage], platform, file.stages[stage].span);
            for instruction in &file.stages[stage].instructions {
                for from in instruction.command.origins() {
                    add(&self.source(from, instruction.span)?, platform, instruction.span);
                }
            }
        }
        Ok(out)
    }
}

#[cfg(test)]
mod tests;
