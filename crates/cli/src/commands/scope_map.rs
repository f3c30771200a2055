//! `portolan acr scope-map …`: what repository tokens may do.

use std::collections::BTreeSet;

use clap::{Arg, ArgAction, ArgMatches, Args, FromArgMatches, Subcommand};
use serde_json::{Value, json};

use super::{Context, signed_in};
use crate::args::Registry;
use crate::error::{Failure, Result};
use crate::output::table::{member, time};
use crate::output::{Output, shape};
use crate::session::Session;

const REPOSITORY_ACTIONS: &[&str] =
    &["content/delete", "content/read", "content/write", "metadata/read", "metadata/write"];
const GATEWAY_ACTIONS: &[&str] = &["config/read", "config/write", "message/read", "message/write"];

/// `--repository REPO ACTION…` and `--gateway GATEWAY ACTION…`, each as often as wanted. The
/// words of one flag belong together, which is why this is not derived. `WORD` is the index
/// of what stands before the flags' names: nothing, `add-` or `remove-`.
#[derive(Clone, Debug, Default)]
pub(super) struct Rules<const WORD: usize> {
    repositories: Vec<Vec<String>>,
    gateways: Vec<Vec<String>>,
}

const WORDS: [(&str, &str); 3] =
    [("repository", "gateway"), ("add-repository", "add-gateway"), ("remove-repository", "remove-gateway")];

impl<const WORD: usize> Rules<WORD> {
    pub(super) fn is_empty(&self) -> bool {
        self.repositories.is_empty() && self.gateways.is_empty()
    }

    /// `repositories/{repo}/{action}` and `gateway/{name}/{action}`, in the order given.
    pub(super) fn actions(&self) -> Result<Vec<String>> {
        let mut actions = Vec::new();
        for (rules, valid, prefix) in
            [(&self.repositories, REPOSITORY_ACTIONS, "repositories"), (&self.gateways, GATEWAY_ACTIONS, "gateway")]
        {
            for rule in rules {
                let [resource, named @ ..] = rule.as_slice() else { continue };
                let resource = resource.to_lowercase();
                if named.is_empty() {
                    return Err(Failure::new(format!("At least one action must be specified with \"{resource}\".")));
                }
                for action in named {
                    let action = action.to_lowercase();
                    if !valid.contains(&action.as_str()) {
                        return Err(Failure::new(format!(
                            "Invalid action \"{action}\" provided. \nValid actions are {}.",
                            valid.join(", ")
                        )));
                    }
                    actions.push(format!("{prefix}/{resource}/{action}"));
                }
            }
        }
        Ok(actions)
    }
}

impl<const WORD: usize> FromArgMatches for Rules<WORD> {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let all = |name: &str| -> Vec<Vec<String>> {
            matches
                .get_occurrences::<String>(name)
                .map(|each| each.map(|words| words.cloned().collect()).collect())
                .unwrap_or_default()
        };
        let (repository, gateway) = WORDS[WORD];
        Ok(Rules { repositories: all(repository), gateways: all(gateway) })
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

impl<const WORD: usize> Args for Rules<WORD> {
    fn augment_args(command: clap::Command) -> clap::Command {
        let (repository, gateway) = WORDS[WORD];
        let flag = |name: &'static str, value: &'static str| {
            Arg::new(name).long(name).num_args(1..).action(ArgAction::Append).value_names([value, "ACTION"])
        };
        let valid = format!("Valid actions: {}", REPOSITORY_ACTIONS.join(", "));
        let mut repositories = flag(repository, "REPO").help(format!("Repository permissions. {valid}"));
        let gateways = flag(gateway, "GATEWAY")
            .help(format!("Gateway permissions. Valid actions: {}", GATEWAY_ACTIONS.join(", ")));
        // What these flags were called before.
        match WORD {
            1 => repositories = repositories.alias("add"),
            2 => repositories = repositories.alias("remove"),
            _ => {}
        }
        command.arg(repositories).arg(gateways)
    }

    fn augment_args_for_update(command: clap::Command) -> clap::Command {
        Self::augment_args(command)
    }
}

/// `portolan acr scope-map …`
#[derive(Debug, Args)]
pub(crate) struct ScopeMapArgs {
    #[command(subcommand)]
    command: ScopeMapCommand,
}

/// A scope map by name.
#[derive(Debug, Args)]
struct Named {
    #[command(flatten)]
    registry: Registry,
    /// The name of the scope map.
    #[arg(short = 'n', long, value_name = "NAME")]
    name: String,
}

#[derive(Debug, Subcommand)]
enum ScopeMapCommand {
    /// Create a scope map.
    Create {
        #[command(flatten)]
        map: Named,
        #[command(flatten)]
        rules: Rules<0>,
        /// Description, of at most 256 characters.
        #[arg(long)]
        description: Option<String>,
    },
    /// List scope maps, the system's own among them.
    List {
        #[command(flatten)]
        registry: Registry,
    },
    /// Show a scope map.
    Show {
        #[command(flatten)]
        map: Named,
    },
    /// Change a scope map; effective at once for all tokens that have it.
    Update {
        #[command(flatten)]
        map: Named,
        #[command(flatten)]
        add: Rules<1>,
        #[command(flatten)]
        remove: Rules<2>,
        /// Description, of at most 256 characters.
        #[arg(long)]
        description: Option<String>,
    },
    /// Delete a scope map.
    Delete {
        #[command(flatten)]
        map: Named,
        /// Do not ask.
        #[arg(short = 'y', long)]
        yes: bool,
    },
}

pub(super) async fn run(ctx: &Context, args: ScopeMapArgs) -> Result<Output> {
    if let ScopeMapCommand::Delete { map, yes } = &args.command {
        let question = format!(
            "Deleting the scope map '{}' will remove its permissions with associated tokens. Proceed?",
            map.name
        );
        ctx.talk.confirm(&question, *yes)?;
    }
    signed_in(ctx, async |session: &Session| with(session, args.command).await).await
}

async fn with(session: &Session, command: ScopeMapCommand) -> Result<Output> {
    let arm = &session.arm;
    let at = |map: &Named| format!("scopeMaps/{}", map.name);
    Ok(match command {
        ScopeMapCommand::Create { map, rules, description } => {
            let mut properties = json!({"actions": rules.actions()?});
            if let Some(description) = description {
                properties["description"] = description.into();
            }
            let body = json!({"properties": properties});
            let at = at(&map);
            let made = session.below(&map.registry, &at, async |id| Ok(arm.put_by_id(id, &body).await?));
            shown(made.await?)
        }
        ScopeMapCommand::List { registry } => {
            let found = session.below(&registry, "scopeMaps", async |id| Ok(arm.all_of(id, None).await?)).await?;
            Output::with_columns(shape::each(found, shape::scope_map), columns)
        }
        ScopeMapCommand::Show { map } => {
            shown(session.below(&map.registry, &at(&map), async |id| Ok(arm.by_id(id).await?)).await?)
        }
        ScopeMapCommand::Update { map, add, remove, description } => {
            if add.is_empty() && remove.is_empty() && description.is_none() {
                return Err(Failure::new("No scope map properties to update."));
            }
            let (add, remove) = (add.actions()?, remove.actions()?);
            let both: Vec<&str> = add
                .iter()
                .filter(|a| remove.contains(a))
                .map(|a| a.split_once('/').map_or(a.as_str(), |p| p.1))
                .collect();
            if !both.is_empty() {
                return Err(Failure::new(format!(
                    "Update ambiguity. Duplicate actions were provided with --add and --remove arguments.\n{}",
                    both.join(", ")
                )));
            }
            let at = at(&map);
            let updated = session.below(&map.registry, &at, async |id| {
                let now = arm.by_id(id).await?;
                let mut actions: BTreeSet<String> = now
                    .pointer("/properties/actions")
                    .and_then(Value::as_array)
                    .into_iter()
                    .flatten()
                    .filter_map(|a| a.as_str().map(str::to_owned))
                    .collect();
                actions.extend(add.iter().cloned());
                actions.retain(|a| !remove.contains(a));
                let mut properties = json!({"actions": actions});
                if let Some(description) = &description {
                    properties["description"] = description.as_str().into();
                }
                Ok(arm.patch_by_id(id, &json!({"properties": properties})).await?)
            });
            shown(updated.await?)
        }
        ScopeMapCommand::Delete { map, .. } => {
            session.below(&map.registry, &at(&map), async |id| Ok(arm.delete_by_id(id).await?)).await?;
            Output::none()
        }
    })
}

fn shown(map: Value) -> Output {
    Output::with_columns(shape::scope_map(map), columns)
}

fn columns(item: &Value) -> Vec<(&'static str, String)> {
    const DESCRIPTION_CHARS_MAX: usize = 57;
    let mut description = member(item, &["description"]);
    if description.chars().count() > DESCRIPTION_CHARS_MAX {
        description = description.chars().take(DESCRIPTION_CHARS_MAX).chain("...".chars()).collect();
    }
    vec![
        ("NAME", member(item, &["name"])),
        ("TYPE", member(item, &["scopeMapType"])),
        ("CREATION DATE", time(item, &["creationDate"])),
        ("DESCRIPTION", description),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules(repositories: &[&[&str]]) -> Rules<0> {
        let own = |rule: &&[&str]| rule.iter().map(|w| (*w).to_owned()).collect();
        Rules { repositories: repositories.iter().map(own).collect(), gateways: Vec::new() }
    }

    #[test]
    fn actions_are_those_there_are() {
        assert_eq!(
            rules(&[&["Team/App", "Content/Read", "metadata/read"], &["b/*", "content/write"]]).actions().unwrap(),
            [
                "repositories/team/app/content/read",
                "repositories/team/app/metadata/read",
                "repositories/b/*/content/write"
            ]
        );
        assert!(rules(&[&["a"]]).actions().unwrap_err().message.contains("At least one action"));
        assert!(rules(&[&["a", "content/burn"]]).actions().unwrap_err().message.contains("Invalid action"));
    }
}
