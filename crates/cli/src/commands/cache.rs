//! `portolan acr cache …`: cache rules.

use clap::{Args, Subcommand};

use super::Context;
use crate::args::Registry;
use crate::error::Result;
use crate::output::{Output, shape};
use crate::session::Session;

/// `portolan acr cache …`
#[derive(Debug, Args)]
pub(crate) struct CacheArgs {
    #[command(subcommand)]
    command: CacheCommand,
}

/// A rule by name.
#[derive(Debug, Args)]
struct Rule {
    #[command(flatten)]
    registry: Registry,
    /// The name of the cache rule.
    #[arg(short = 'n', long, value_name = "RULE")]
    name: String,
}

#[derive(Debug, Subcommand)]
enum CacheCommand {
    /// Create a cache rule.
    Create {
        #[command(flatten)]
        rule: Rule,
        /// The repository to bring images from, such as docker.io/library/ubuntu; may end in /*.
        #[arg(short = 's', long, value_name = "SOURCE")]
        source_repo: String,
        /// The repository they are to appear in, such as ubuntu; may end in /*.
        #[arg(short = 't', long, value_name = "TARGET")]
        target_repo: String,
    },
    /// List cache rules.
    List {
        #[command(flatten)]
        registry: Registry,
    },
    /// Show a cache rule.
    Show {
        #[command(flatten)]
        rule: Rule,
    },
    /// Delete a cache rule. What it has brought in stays.
    Delete {
        #[command(flatten)]
        rule: Rule,
        /// Do not ask.
        #[arg(short = 'y', long)]
        yes: bool,
    },
}

pub(super) async fn run(ctx: &Context, args: CacheArgs) -> Result<Output> {
    if let CacheCommand::Delete { yes, .. } = &args.command {
        ctx.talk.confirm("Are you sure you want to perform this operation?", *yes)?;
    }
    let session = Session::open(&ctx.global)?;
    let output = on(&session, args.command).await;
    session.keep();
    output
}

async fn on(session: &Session, command: CacheCommand) -> Result<Output> {
    let arm = &session.arm;
    let at = |registry: &Registry| (registry.name.clone(), registry.resource_group.clone());
    match command {
        CacheCommand::Create { rule, source_repo, target_repo } => {
            let (registry, group) = at(&rule.registry);
            let made = session.with_registry(&registry, group.as_deref(), async |r| {
                Ok(arm.put_cache_rule(r, &rule.name, &source_repo, &target_repo).await?)
            });
            Ok(Output::value(shape::cache_rule(made.await?)))
        }
        CacheCommand::List { registry } => {
            let rules = session.with_registry(&registry.name, registry.resource_group.as_deref(), async |r| {
                Ok(arm.cache_rules(r).await?)
            });
            Ok(Output::value(shape::each(rules.await?, shape::cache_rule)))
        }
        CacheCommand::Show { rule } => {
            let (registry, group) = at(&rule.registry);
            let shown =
                session.with_registry(&registry, group.as_deref(), async |r| Ok(arm.cache_rule(r, &rule.name).await?));
            Ok(Output::value(shape::cache_rule(shown.await?)))
        }
        CacheCommand::Delete { rule, .. } => {
            let (registry, group) = at(&rule.registry);
            let deleted = session
                .with_registry(&registry, group.as_deref(), async |r| Ok(arm.delete_cache_rule(r, &rule.name).await?));
            deleted.await?;
            Ok(Output::none())
        }
    }
}
