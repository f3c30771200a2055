//! The commands, one file for each kind of thing, with its grammar beside what it does.

mod account;
mod acr;
mod ad;
mod azure_cli;
mod build;
mod cache;
mod config;
mod credential;
mod custom_domain;
mod docker;
mod endpoint;
mod group;
mod health;
mod identity;
mod lock;
mod login;
mod manifest;
mod monitor;
mod network_rule;
mod pull;
mod registry;
mod registry_identity;
mod repository;
mod role;
mod run;
mod scope_map;
mod security;
mod token;
mod version;

use clap::Subcommand;

use crate::args::{Global, With};
use crate::error::Result;
use crate::output::Output;
use crate::session::Session;
use crate::talk::Talk;

/// What a command gets.
#[derive(Clone, Debug)]
pub struct Context {
    /// Arguments every command takes.
    pub global: Global,
    /// stderr.
    pub talk: Talk,
}

/// All commands of the client.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Sign in to a server.
    Login(With<login::LoginArgs>),
    /// Sign out and forget all tokens.
    Logout(With<login::LogoutArgs>),
    /// Show who is signed in where.
    Account(With<account::AccountArgs>),
    /// Manage resource groups.
    Group(With<group::GroupArgs>),
    /// Manage registries, what is in them, and builds.
    Acr(With<acr::AcrArgs>),
    /// Manage the directory: users, applications, service principals.
    Ad(With<ad::AdArgs>),
    /// Manage who may do what: role definitions and assignments.
    Role(With<role::RoleArgs>),
    /// Manage managed identities.
    Identity(With<identity::IdentityArgs>),
    /// Manage locks, which keep things from being changed or deleted.
    Lock(With<lock::LockArgs>),
    /// See what was done.
    Monitor(With<monitor::MonitorArgs>),
    /// Manage security plans and see assessments.
    Security(With<security::SecurityArgs>),
    /// Use a real Azure CLI (`az`) with this server.
    AzureCli(With<azure_cli::AzureCliArgs>),
    /// Show the version.
    Version(With<version::VersionArgs>),
}

impl Command {
    /// The arguments that every command takes.
    pub fn global(&self) -> &Global {
        match self {
            Command::Login(c) => &c.global,
            Command::Logout(c) => &c.global,
            Command::Account(c) => &c.global,
            Command::Group(c) => &c.global,
            Command::Acr(c) => &c.global,
            Command::Ad(c) => &c.global,
            Command::Role(c) => &c.global,
            Command::Identity(c) => &c.global,
            Command::Lock(c) => &c.global,
            Command::Monitor(c) => &c.global,
            Command::Security(c) => &c.global,
            Command::AzureCli(c) => &c.global,
            Command::Version(c) => &c.global,
        }
    }

    /// Do it.
    pub async fn run(self, ctx: &Context) -> Result<Output> {
        match self {
            Command::Login(c) => login::login(ctx, c.args).await,
            Command::Logout(c) => login::logout(ctx, c.args),
            Command::Account(c) => account::run(ctx, c.args).await,
            Command::Group(c) => group::run(ctx, c.args).await,
            Command::Acr(c) => acr::run(ctx, c.args).await,
            Command::Ad(c) => ad::run(ctx, c.args).await,
            Command::Role(c) => role::run(ctx, c.args).await,
            Command::Identity(c) => identity::run(ctx, c.args).await,
            Command::Lock(c) => lock::run(ctx, c.args).await,
            Command::Monitor(c) => monitor::run(ctx, c.args).await,
            Command::Security(c) => security::run(ctx, c.args).await,
            Command::AzureCli(c) => azure_cli::run(ctx, c.args).await,
            Command::Version(_) => version::run(),
        }
    }
}

/// Do something as who is signed in, and keep what was learned.
async fn signed_in(ctx: &Context, work: impl AsyncFnOnce(&Session) -> Result<Output>) -> Result<Output> {
    let session = Session::open(&ctx.global)?;
    let output = work(&session).await;
    session.keep();
    output
}
