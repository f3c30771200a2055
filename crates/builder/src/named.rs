//! Named contexts (`--build-context NAME=…`): what `FROM NAME`, `COPY --from=NAME` and
//! `RUN --mount=from=NAME` mean instead of a stage or an image of that name.
//!
//! A context of files becomes a stage of its own that copies them all, so that whatever can
//! be done with a stage can be done with it.

use portolan_types::ImageRef;

use crate::context::BuildContext;
use crate::error::Span;
use crate::graph::Origin;
use crate::instruct::{Command, Copy, File, Instruction, Stage};

/// What a name stands for.
#[derive(Clone, Debug)]
pub enum NamedContext {
    /// A tree of files.
    Files(BuildContext),
    /// An image.
    Image(ImageRef),
}

/// `--from` of the step that copies a named context's files; no file can say it.
const FILES: &str = "\0files ";

/// Give a file the contexts of a build.
pub(crate) fn add(file: &mut File, contexts: &[(String, NamedContext)]) {
    let span = file.stages.first().map_or(Span { first: 1, last: 1 }, |stage| stage.span);
    for (number, (name, context)) in contexts.iter().enumerate() {
        let origin = match context {
            NamedContext::Image(image) => Origin::Image(image.clone()),
            NamedContext::Files(_) => {
                file.stages.push(stage(number, name, span));
                file.synthetic += 1;
                Origin::Stage(file.stages.len() - 1)
            }
        };
        file.contexts.push((name.clone(), origin));
    }
}

/// Whether what a file calls `name` is the context of that name: written alike, or the same
/// image (`alpine`, `docker.io/library/alpine:latest`).
pub(crate) fn is_meant(context: &str, name: &str) -> bool {
    let image =
        |text: &str| text.parse::<ImageRef>().ok().map(|i| (i.host.clone(), i.repo.clone(), i.reference().to_string()));
    context.eq_ignore_ascii_case(name) || image(context).is_some_and(|wanted| image(name) == Some(wanted))
}

/// The number of the context that a step copies whole.
pub(crate) fn number(from: &str) -> Option<usize> {
    from.strip_prefix(FILES)?.parse().ok()
}

fn stage(number: usize, name: &str, span: Span) -> Stage {
    let copy = Copy {
        add: false,
        unpack: false,
        unpack_fetched: false,
        sources: vec![".".to_owned()],
        documents: Vec::new(),
        dest: "/".to_owned(),
        from: Some(format!("{FILES}{number}")),
        chown: None,
        chmod: None,
        link: false,
        parents: false,
        exclude: Vec::new(),
        checksum: None,
        keep_git_dir: false,
    };
    let text = format!("load {name}");
    let instructions = vec![Instruction { command: Command::Copy(copy), text, span }];
    Stage { base: "scratch".to_owned(), name: None, platform: None, instructions, span }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_images_are_the_same_however_written() {
        for (context, name) in
            [("lib", "LIB"), ("alpine", "docker.io/library/alpine:latest"), ("a/b:1", "docker.io/a/b:1")]
        {
            assert!(is_meant(context, name) && is_meant(name, context), "{context} {name}");
        }
        for (context, name) in [("lib", "lib2"), ("alpine:3", "alpine"), ("h.example/alpine", "alpine")] {
            assert!(!is_meant(context, name), "{context} {name}");
        }
        assert_eq!((number("\0files 3"), number("3")), (Some(3), None));
    }
}
