//! The commands, one file for each kind of thing, with its grammar beside what it does.

mod account;
mod acr;
mod azure_cli;
mod build;
mod cache;
mod credential;
mod docker;
mod group;
mod login;
mod manifest;
mod pull;
mod repository;
mod run;
mod version;

use clap::Subcommand;

use crate::args::{Global, With};
use crate::error::Result;
use crate::output::Output;
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
            Command::AzureCli(c) => &c.global,
            Command::Version(c) => &c.global,
        }
    }

    /// Do it.
    pub async fn run(self, ctx: &Context) -> Result<Output> {
        match self {
            Command::Login(c) => login::login(ctx, c.args).await,
            Command::Logout(_) => login::logout(ctx),
            Command::Account(c) => account::run(ctx, c.args).await,
            Command::Group(c) => group::run(ctx, c.args).await,
            Command::Acr(c) => acr::run(ctx, c.args).await,
            Command::AzureCli(c) => azure_cli::run(ctx, c.args).await,
            Command::Version(_) => version::run(),
        }
    }
}
