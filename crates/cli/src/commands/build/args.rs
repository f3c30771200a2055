//! The flags of `acr build`: az's, and docker's where az has none.

use clap::{Args, ValueEnum};
use portolan_types::limits;

use crate::args::Registry;
use crate::log::Style;

/// `portolan acr build`
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  portolan acr build -r myreg -t app:v1 .
  portolan acr build -r myreg -t app:v1 -t app:latest -f deploy/Dockerfile --build-arg VERSION=1 .
  portolan acr build -r myreg -t app:v1 --platform linux/amd64,linux/arm64 .
  portolan acr build -r myreg -t app:v1 --secret id=npm,src=$HOME/.npmrc --ssh default .
  portolan acr build -r myreg -t app:v1 --build-context lib=../lib --provenance --sbom .
  portolan acr build -r myreg -t app:dev https://github.com/owner/app.git#develop
  tar c Dockerfile src | portolan acr build -r myreg -t app:v1 -")]
pub(crate) struct BuildArgs {
    #[command(flatten)]
    pub(super) registry: Registry,
    /// Name and tag of the image, as -t repo/image:tag; many are given by many -t.
    #[arg(short = 't', long = "image", alias = "tag", value_name = "IMAGE")]
    pub(super) image_names: Vec<String>,
    /// The Dockerfile, from the context's folder.
    #[arg(short = 'f', long, value_name = "FILE")]
    pub(super) file: Option<String>,
    /// Build argument, as name=value; name alone takes the value from the environment.
    #[arg(long, value_name = "NAME[=VALUE]")]
    pub(super) build_arg: Vec<String>,
    /// Build argument whose value is kept out of logs and listings.
    #[arg(long, value_name = "NAME[=VALUE]")]
    pub(super) secret_build_arg: Vec<String>,
    /// The platform the image is for, as os[/arch[/variant]], such as linux/arm64; with several
    /// of them, by commas or by many --platform, one index of all is made.
    #[arg(long, value_name = "PLATFORM", value_delimiter = ',')]
    pub(super) platform: Vec<String>,
    /// The stage to stop at.
    #[arg(long, value_name = "STAGE")]
    pub(super) target: Option<String>,
    /// The longest the build may take, in seconds.
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u32).range(1..=limits::RUN_SECS_MAX as i64))]
    pub(super) timeout: Option<u32>,
    /// Build only; put nothing into the registry.
    #[arg(long)]
    pub(super) no_push: bool,
    /// Do every step again.
    #[arg(long, help_heading = DOCKER)]
    pub(super) no_cache: bool,
    /// Do not show the log; wait and show the run.
    #[arg(long)]
    pub(super) no_logs: bool,
    /// Do not wait for the build's end.
    #[arg(long)]
    pub(super) no_wait: bool,
    /// Show the log as it is, without colour and without redrawing.
    #[arg(long)]
    pub(super) no_format: bool,
    /// Whether the build is logged in to its own registry. Builds here always are.
    #[arg(long, value_enum, ignore_case = true, hide_short_help = true)]
    pub(super) auth_mode: Option<AuthMode>,
    /// Not supported: builds have no pools of agents here.
    #[arg(long, value_name = "POOL", hide_short_help = true)]
    pub(super) agent_pool: Option<String>,
    /// Taken for az's sake: where ACR puts the logs of registries with keys of their own. Logs
    /// are kept by the server here; see `acr task logs`.
    #[arg(long, value_name = "IMAGE", hide_short_help = true)]
    pub(super) log_template: Option<String>,
    /// As whom the build reads and writes a registry whose roles are asked for each repository:
    /// [caller], or none.
    #[arg(long, value_name = "IDENTITY", hide_short_help = true)]
    pub(super) source_acr_auth_id: Option<String>,
    /// A secret for RUN --mount=type=secret, as id=NAME,src=FILE or id=NAME,env=VARIABLE.
    #[arg(long, value_name = "id=NAME[,src=FILE|,env=VARIABLE]", help_heading = DOCKER)]
    pub(super) secret: Vec<String>,
    /// SSH for RUN --mount=type=ssh: `default` for the agent here, or an agent's socket or keys
    /// (files, without passphrase), as NAME=FILE[,FILE].
    #[arg(long, value_name = "default|NAME[=SOCKET|FILE[,FILE]]", help_heading = DOCKER)]
    pub(super) ssh: Vec<String>,
    /// Another context, which FROM and COPY --from name: a folder, the address of a git
    /// repository or archive, or docker-image://IMAGE.
    #[arg(long, value_name = "NAME=SOURCE", help_heading = DOCKER)]
    pub(super) build_context: Vec<String>,
    /// A cache to read from: an image's name, or type=registry,ref=IMAGE.
    #[arg(long, value_name = "IMAGE|type=TYPE[,NAME=VALUE]", help_heading = DOCKER)]
    pub(super) cache_from: Vec<String>,
    /// A cache to write to: type=registry,ref=IMAGE[,mode=min|max], or type=inline.
    #[arg(long, value_name = "IMAGE|type=TYPE[,NAME=VALUE]", help_heading = DOCKER)]
    pub(super) cache_to: Vec<String>,
    /// Attach how the image was built (SLSA provenance).
    #[arg(long, value_name = "true|false|mode=min|max", num_args = 0..=1, require_equals = true, default_missing_value = "true", help_heading = DOCKER)]
    pub(super) provenance: Option<String>,
    /// Attach what is in the image (SPDX).
    #[arg(long, value_name = "true|false", num_args = 0..=1, require_equals = true, default_missing_value = "true", help_heading = DOCKER)]
    pub(super) sbom: Option<String>,
    /// The same two, as type=provenance[,mode=max] or type=sbom.
    #[arg(long, value_name = "type=TYPE[,NAME=VALUE]", help_heading = DOCKER)]
    pub(super) attest: Vec<String>,
    /// A label of the image, over the Dockerfile's.
    #[arg(long, value_name = "NAME=VALUE", help_heading = DOCKER)]
    pub(super) label: Vec<String>,
    /// An annotation of the image's manifest, or of what is named before the colon.
    #[arg(long, value_name = "[manifest|index|manifest-descriptor|index-descriptor:]NAME=VALUE", help_heading = DOCKER)]
    pub(super) annotation: Vec<String>,
    /// How the log is shown; auto is tty on a terminal and plain elsewhere.
    #[arg(long, value_enum, ignore_case = true, default_value_t, hide_default_value = true, env = "BUILDKIT_PROGRESS", hide_env = true, help_heading = DOCKER)]
    pub(super) progress: Style,
    /// Show nothing but the image's digest. (az has no short form of it; -q is docker's.)
    #[arg(short = 'q', long, help_heading = DOCKER)]
    pub(super) quiet: bool,
    /// Look for mistakes in the Dockerfile, and build nothing.
    #[arg(long, help_heading = DOCKER)]
    pub(super) check: bool,
    /// Write the image's ID into a file.
    #[arg(long, value_name = "FILE", help_heading = DOCKER)]
    pub(super) iidfile: Option<std::path::PathBuf>,
    /// Write what was built, as JSON, into a file.
    #[arg(long, value_name = "FILE", help_heading = DOCKER)]
    pub(super) metadata_file: Option<std::path::PathBuf>,
    /// The source: a folder, the address of a git repository or archive, or - for a tar
    /// archive (or a lone Dockerfile) on stdin.
    #[arg(value_name = "SOURCE")]
    pub(super) source: String,
}

/// What az has not.
const DOCKER: &str = "Arguments of docker's own build";

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum AuthMode {
    #[value(name = "Default")]
    Default,
    #[value(name = "None")]
    None,
}
