//! `COPY` and `ADD`, evaluated.

use portolan_types::ignore::Ignore;

use super::super::remote::RemoteAdd;
use super::values::absolute;
use super::{CopyOp, Eval, Op};
use crate::copy::Chmod;
use crate::error::{Fault, Span};
use crate::expand::Lexer;
use crate::instruct::{Copy, Document, Instruction};

impl Eval<'_> {
    pub(super) fn copy(&mut self, copy: &Copy, instruction: &Instruction, trigger: bool) -> Result<(), Fault> {
        let span = instruction.span;
        let option = |text: &Option<String>| text.as_ref().map(|t| self.expand(t, span)).transpose();
        let chown = option(&copy.chown)?.filter(|c| !c.is_empty());
        let chmod_text = option(&copy.chmod)?.filter(|c| !c.is_empty());
        let chmod = match &chmod_text {
            None => None,
            Some(text) => Some(text.parse::<Chmod>().map_err(|_| {
                Fault::new(span, format!("--chmod={text} is not a mode"))
                    .at("--chmod")
                    .hint("write an octal number such as 755, or letters such as u=rwX,go=rX")
            })?),
        };
        let sources = self.expand_all(&copy.sources, span)?;
        let exclude = self.expand_all(&copy.exclude, span)?;
        Ignore::of(exclude.iter().map(String::as_str))
            .map_err(|e| Fault::new(span, format!("--exclude={}: {}", e.pattern, e.why)).at("--exclude"))?;
        let checksum = copy.checksum.as_deref().map(|text| self.expand(text, span)).transpose()?;
        let (mut remotes, mut here) = (Vec::new(), Vec::new());
        for source in &sources {
            let read = match copy.add {
                true => RemoteAdd::read(source, checksum.as_deref(), copy.keep_git_dir),
                false => Ok(None),
            };
            match read.map_err(|why| Fault::new(span, why).at(source))? {
                Some(remote) => remotes.push(remote),
                None => here.push(source.clone()),
            }
        }
        if checksum.is_some() && (remotes.len() != 1 || !here.is_empty()) {
            return Err(Fault::new(span, "--checksum is for one download or git address").at("--checksum"));
        }
        if copy.keep_git_dir && remotes.is_empty() {
            return Err(Fault::new(span, "--keep-git-dir is for git addresses").at("--keep-git-dir"));
        }
        let documents: Vec<(String, String)> = copy
            .documents
            .iter()
            .map(|d| Ok((d.name.clone(), self.document(d, span)?)))
            .collect::<Result<_, Fault>>()?;
        let written = self.expand(&copy.dest, span)?;
        let mut dest = absolute(&self.stage.image.config.working_dir, &written);
        let is_dir = written.is_empty() || written.ends_with('/') || written == "." || written.ends_with("/.");
        if is_dir && !dest.ends_with('/') {
            dest.push('/');
        }
        if sources.len() + documents.len() > 1 && !dest.ends_with('/') {
            return Err(Fault::new(span, format!("several sources need a directory as destination, not {written:?}"))
                .at(&copy.dest)
                .hint(format!("write {written}/")));
        }
        let from = copy.from.as_ref().map(|from| (self.inputs.source)(from, span)).transpose()?;

        let mut created_by = if copy.add { "ADD" } else { "COPY" }.to_owned();
        if copy.parents {
            created_by.push_str(" --parents");
        }
        if let Some(chown) = &chown {
            created_by.push_str(&format!(" --chown={chown}"));
        }
        if let Some(chmod) = &chmod_text {
            created_by.push_str(&format!(" --chmod={chmod}"));
        }
        sources.iter().for_each(|s| created_by.push_str(&format!(" {s}")));
        documents.iter().for_each(|(name, _)| created_by.push_str(&format!(" <<{name}")));
        created_by.push_str(&format!(" {written} # buildkit"));
        let shown = self.shown(instruction, false);
        let op = CopyOp {
            from,
            sources: here,
            documents,
            dest,
            chown,
            chmod,
            unpack: copy.unpack,
            unpack_fetched: copy.unpack_fetched,
            parents: copy.parents,
            exclude,
            link: copy.link,
            remotes,
        };
        self.step(instruction, trigger, shown, Op::Copy(op));
        self.history(&created_by, true);
        Ok(())
    }

    fn document(&self, document: &Document, span: Span) -> Result<String, Fault> {
        if !document.expand {
            return Ok(document.text.clone());
        }
        Lexer { plain_quotes: true, ..Lexer::new('\\') }
            .word(&document.text, &|name| self.stage.env.get(name).cloned())
            .map_err(|e| Fault::new(span, e.to_string()))
    }
}
