//! The table of settings: the only place where one is named. The macro makes of it the
//! [`Settings`] struct, the list [`ALL`] and the readers.

use std::net::SocketAddr;
use std::path::PathBuf;

use portolan_types::IpNet;

use super::values::{
    BlobPlace, BuildNetwork, BuildUserNamespace, ByteSize, CertName, DatabaseUrl, DomainName, FetchAllow, HostPort,
    IdentityAddresses, LifetimeSecs, LogFormat, Positive, ProxyHeader, Reach, SecretText, TierChanges, Value,
};
use super::{Raw, Setting, SettingsError};
use crate::otel::{OtlpEndpoint, Ratio};
use crate::sink::LogTarget;

macro_rules! settings {
    ($( $section:literal { $( $(#[doc = $doc:literal])+ $name:ident: $ty:ty = $default:literal $(, flag $flag:literal)?; )+ } )+) => {
        /// How one server is set up.
        #[derive(Clone, Debug)]
        pub struct Settings {
            $($( $(#[doc = $doc])+ pub $name: $ty, )+)+
        }

        /// Every setting, in the order of the reference page.
        pub const ALL: &[Setting] = &[
            $($( Setting {
                section: $section,
                name: stringify!($name),
                kind: <$ty as Value>::KIND,
                default: $default,
                flag: [$(Some($flag),)? None][0],
                doc: &[$($doc),+],
            }, )+)+
        ];

        impl Settings {
            /// Every setting at its default.
            pub fn defaults() -> Result<Settings, SettingsError> {
                Ok(Settings {
                    $($( $name: <$ty as Value>::parse($default)
                        .map_err(|why| SettingsError(format!("default of {}: {why}", stringify!($name))))?, )+)+
                })
            }

            pub(super) fn put(&mut self, name: &str, raw: Raw<'_>) -> Result<(), String> {
                match name {
                    $($( stringify!($name) => self.$name = raw.read()?, )+)+
                    _ => return Err("no such setting".to_owned()),
                }
                Ok(())
            }
        }
    };
}

settings! {
    "Places and addresses" {
        /// The folder that holds everything the server keeps: database, blobs, keys, its CA. Made with mode 0700
        /// when it is not there. One server at a time may use it.
        data: PathBuf = "./data", flag "--data";
        /// The address for TLS: `IP:PORT`, `localhost:PORT`, or `:PORT` for every address of the machine. Port 0
        /// takes a free one. The default can be reached from this machine only.
        listen: SocketAddr = "127.0.0.1:8443", flag "--listen";
        /// A second address without TLS, for clients on the same machine or behind a proxy that ends TLS.
        /// Passwords and tokens cross it in the clear.
        listen_http: Option<SocketAddr> = "", flag "--listen-http";
        /// The domain whose sub-domains are the registries: registry `NAME` answers at `NAME.<domain>`. Without it
        /// the first registry answers at the server's own address and the others at `NAME.localhost`.
        domain: Option<DomainName> = "", flag "--domain";
        /// Host and port by which clients reach this server when it is not the address it listens on (a port mapped
        /// by a container runtime, a load balancer): `registry.example.com`, `localhost:5443`. Without it: the domain,
        /// or else `localhost`, with the port listened on. It stands in every URL that the server hands out.
        public_address: Option<HostPort> = "";
        /// The name of this server's region, as the control plane shows it.
        region: String = "local";
    }
    "Database" {
        /// The PostgreSQL database that holds the metadata, as
        /// `postgres://USER@HOST:5432/DATABASE?sslmode=verify-full`. Any number of servers may share it. Without it
        /// metadata is kept in SQLite in the data folder, for one server. `sslmode` is `disable`, `prefer` (the
        /// default: TLS when the database offers it), `require` (TLS, whoever answers) or `verify-full` (TLS with a
        /// certificate for HOST from an authority in the file `sslrootcert=…`, or else one that this machine trusts).
        /// For a unix socket HOST is its folder, percent-encoded. Connect to the database itself: a pooler that
        /// hands connections out by transaction does not do.
        database: Option<DatabaseUrl> = "";
        /// A file whose first line is the password for `database`. It is read at every new connection, so the
        /// password may change while the server runs.
        database_password_file: Option<PathBuf> = "";
        /// Connections to `database` for reading, from 1 to 64. Besides them the server has one for writing and one
        /// on which it hears from other servers.
        database_readers: Positive = "8";
        /// How long to wait at the start for a database that cannot be reached yet, in seconds.
        database_wait_secs: Positive = "30";
    }
    "Blobs" {
        /// The bucket that holds blobs, uploads, build contexts and logs: `s3://BUCKET/PREFIX` (S3 and what speaks like
        /// it), `az://CONTAINER/PREFIX` (Azure Blob Storage) or `gs://BUCKET/PREFIX` (Google Cloud Storage). Any number
        /// of servers may share it. It must be there already. Without it blobs are kept in the data folder. What of the
        /// following is not set is looked for where the clouds' own tools look: `AWS_*`, `AZURE_STORAGE_*` and
        /// `GOOGLE_*` in the environment, then the identity of the machine. See docs/storage.md.
        blobs: Option<BlobPlace> = "";
        /// The address of the storage service when it is not the cloud's own: `https://s3.example.com`.
        blob_endpoint: Option<String> = "";
        /// The region of an S3 bucket.
        blob_region: Option<String> = "";
        /// S3: the access key id. Azure: the name of the storage account.
        blob_account: Option<String> = "";
        /// S3: the secret access key. Azure: the account's key.
        blob_secret: Option<SecretText> = "";
        /// A file with the credentials instead. S3: as `~/.aws/credentials`. Azure: the account's key. Google: a service
        /// account's key (JSON).
        blob_credentials_file: Option<PathBuf> = "";
        /// The size of the parts in which content longer than that goes to the bucket, from 5MiB to 256MiB. Up to 24
        /// parts of all uploads are in memory at the same time; more wait in files under the data folder.
        blob_part_bytes: ByteSize = "8MiB";
        /// Copies of blobs that builds read, kept in the data folder beside a bucket. The ones not used for longest go
        /// first.
        blob_cache_bytes_max: ByteSize = "10GiB";
        /// Answer the GET of a blob with 307 and a URL at which the bucket itself gives it, signed and good for
        /// `blob_redirect_secs`. Clients must reach the bucket by the address that the server has for it. Who may read
        /// is decided before. HEAD is answered by the server, which also reads what it needs itself.
        blob_redirect: bool = "false";
        /// How long such a URL is good, in seconds; at most 604800.
        blob_redirect_secs: Positive = "1200";
    }
    "Secrets" {
        /// The file with the master key (64 hex digits, `openssl rand -hex 32`) that everything sealed or derived
        /// hangs on. Without it the first start makes `master.key` in the data folder. Servers that share a database
        /// share the key: one with another is refused.
        master_key_file: Option<PathBuf> = "";
    }
    "TLS" {
        /// The operator's certificate (PEM, with its chain). Without it the server makes a CA under `data/tls` and
        /// its own certificate from it. Read again when the file changes or on SIGHUP.
        tls_cert: Option<PathBuf> = "";
        /// The private key (PEM) of `tls_cert`.
        tls_key: Option<PathBuf> = "";
        /// More names for the server's own certificate, besides localhost, this machine's name, the address
        /// listened on and the domain.
        tls_names: Vec<CertName> = "";
    }
    "Networks" {
        /// Proxies whose word about who sent a request is taken: addresses and networks in which there is nothing
        /// else. The client's address counts for registries' network rules, for rates and in logs. Of several proxies
        /// in a row each must be named; the address that the first one not named came from is the client's.
        trusted_proxies: Vec<IpNet> = "";
        /// The header in which these proxies write it. They must set it themselves or add to it, and the other one
        /// is not looked at.
        proxy_header: ProxyHeader = "x-forwarded-for";
        /// Networks whose clients reach every registry, as those at a private endpoint do in Azure: neither
        /// `publicNetworkAccess` nor network rules keep them out.
        private_networks: Vec<IpNet> = "";
    }
    "Tiers" {
        /// What registries of SKU Basic may hold and do, where it differs from Azure's limits: see
        /// docs/reference/registries.md.
        tier_basic: TierChanges = "";
        /// The same for SKU Standard.
        tier_standard: TierChanges = "";
        /// The same for SKU Premium.
        tier_premium: TierChanges = "";
    }
    "Logs" {
        /// `text`, `json`, or `auto`: text on a terminal, else JSON. Logs go to standard error.
        log_format: LogFormat = "auto";
        /// What to log: `error`, `warn`, `info`, `debug`, `trace`, and finer by module, as in `warn,portolan_tasks=debug`.
        log_filter: String = "info";
        /// Where the access log goes, one JSON object for each request: `none`, `stderr`, or a file, which is opened
        /// anew on SIGHUP. Lines that the disk or pipe does not take in time are dropped and counted.
        access_log: LogTarget = "stderr";
        /// Where the audit log goes, one JSON object for each change, sign-in and refusal: `none`, `stderr`, or a
        /// file, which is opened anew on SIGHUP. A line is written before its request is answered.
        audit_log: LogTarget = "stderr";
    }
    "Activity log" {
        /// How many days the activity log (`az monitor activity-log list`) keeps an event: what was done to
        /// registries, groups, roles, locks and the like, by whom, and how it ended.
        activity_log_days: Positive = "90";
        /// How many events it keeps at most; the oldest go first.
        activity_log_events_max: Positive = "1000000";
    }
    "Metrics and traces" {
        /// An address of its own for `/metrics`, `/healthz` and `/readyz`, without TLS. With it, the other addresses
        /// do not serve `/metrics`.
        metrics_listen: Option<SocketAddr> = "";
        /// A file with a token that `/metrics` then asks for, as `Authorization: Bearer`. Read once, at the start.
        metrics_token_file: Option<PathBuf> = "";
        /// Where traces go: the base address of an OpenTelemetry collector (OTLP over HTTP, protobuf), as in
        /// `http://localhost:4318`; `/v1/traces` is added. Without it nothing is traced.
        otlp_endpoint: Option<OtlpEndpoint> = "";
        /// A file with headers for the collector, one `name: value` on a line: what it asks for to let us in.
        otlp_headers_file: Option<PathBuf> = "";
        /// The name under which traces are sent (`service.name`).
        otlp_service_name: String = "portolan";
        /// The part of requests that is traced, from 0 to 1, where the client does not say (`traceparent`).
        otlp_sample_ratio: Ratio = "1";
    }
    "Limits and times" {
        /// Connections open at the same time; more wait to be accepted.
        connections_max: Positive = "8192";
        /// Connections open at the same time from one address (IPv6: from one network of 64 bits); more are closed
        /// at once. 0 for no limit: behind a proxy every client has the proxy's address.
        connections_per_address_max: u32 = "4096";
        /// Requests in flight at the same time; more are answered 503 with `Retry-After`.
        requests_max: Positive = "16384";
        /// Requests in flight at the same time on one HTTP/2 connection.
        http2_streams_max: Positive = "256";
        /// The request line and headers of one request; more is answered 431.
        header_bytes_max: ByteSize = "64KiB";
        /// Headers of one request; more are answered 431.
        headers_max: Positive = "64";
        /// The path and query of one request; more is answered 414.
        uri_bytes_max: ByteSize = "16KiB";
        /// The size of a manifest, at most 4 MiB; more is answered 413.
        manifest_bytes_max: ByteSize = "4MiB";
        /// The size of a layer or other blob; more is answered 413.
        layer_bytes_max: ByteSize = "200GiB";
        /// Memory for request bodies that are read whole before they are handled (manifests, forms, JSON), all
        /// requests together. A request that finds none waits a few seconds and is then answered 503 with
        /// `Retry-After`.
        body_memory_bytes_max: ByteSize = "256MiB";
        /// How long a client may take to send the headers of a request, and how long an HTTP/1.1 connection may
        /// stay open between two, in seconds.
        header_read_timeout_secs: Positive = "60";
        /// How long a client may take for the TLS handshake, in seconds.
        tls_handshake_timeout_secs: Positive = "10";
        /// How long a client that is sending a body, or taking one, may do nothing, or next to nothing
        /// (`body_window_bytes_min`), and how long an HTTP/2 connection may stay open without a request, in seconds.
        body_idle_timeout_secs: Positive = "120";
        /// How much a client that is sending a body, or taking one, must get done within `body_idle_timeout_secs` of
        /// being waited for.
        body_window_bytes_min: ByteSize = "16KiB";
        /// How long requests in flight and running builds are given to finish when the server is told to stop, in
        /// seconds.
        drain_timeout_secs: Positive = "30";
    }
    "Storage" {
        /// How often unreferenced content is looked for, in seconds.
        gc_interval_secs: Positive = "60";
        /// How long an uploaded or mounted blob waits for a manifest that needs it, in seconds: the longest that a
        /// push may take between its first layer and its manifest.
        gc_link_grace_secs: Positive = "86400";
        /// How long a blob stays after the last manifest that needed it was deleted, in seconds.
        gc_unlink_grace_secs: Positive = "600";
        /// How long a blob stays after a push asked whether it is here, in seconds: such a push does not send it
        /// again.
        gc_touch_grace_secs: Positive = "3600";
        /// How long an upload may go without a byte before it is forgotten, in seconds.
        gc_upload_idle_secs: Positive = "86400";
        /// Look for garbage, and say in the log and in `/metrics` what would go, but remove nothing.
        gc_dry_run: bool = "false";
        /// Uploads open at the same time in one registry; more are answered 429.
        uploads_max: Positive = "10000";
        /// Uploads that one identity may have open at the same time in one registry; more are answered 429.
        uploads_per_identity_max: Positive = "10000";
    }
    "Rates" {
        /// Requests that read (GET, HEAD) of one identity in a minute; anonymous ones count by client address. More
        /// are answered 429 with `Retry-After`. 0 for no limit. (ACR Premium: 10,000 for each registry.)
        rate_reads_per_min: u32 = "0";
        /// Requests that write of one identity in a minute. 0 for no limit. (ACR Premium: 2,000 for each registry.)
        rate_writes_per_min: u32 = "0";
        /// Tokens asked for from one client address in a minute. 0 for no limit.
        rate_tokens_per_min: u32 = "0";
        /// Sign-ins with a wrong password, secret or refresh token from one client address in a minute. After that,
        /// most sign-ins from there are answered 429 unread, but for identities that have signed in from there
        /// before. 0 for no limit.
        rate_failed_sign_ins_per_min: u32 = "600";
        /// Sign-ins with a wrong password or secret for one identity in a minute, from wherever. After that, each
        /// address that the identity has not signed in from has two more in a minute, and the others go on as
        /// before: its owner is never locked out. 0 for no limit.
        rate_failed_sign_ins_per_identity_per_min: u32 = "60";
        /// How many seconds' worth of a rate may come at once.
        rate_burst_secs: Positive = "60";
        /// Identities and addresses whose rates are remembered; the least recently seen are forgotten.
        rate_identities_max: Positive = "100000";
    }
    "Tokens" {
        /// How long a directory token lasts, in seconds, from 60 to 86400: what `az login` gets for the control plane,
        /// for Graph and for registries.
        token_directory_secs: LifetimeSecs = "3600";
        /// How long a registry refresh token lasts, in seconds, from 60 to 86400: what `docker login` keeps after
        /// `az acr login`. (ACR: three hours.)
        token_refresh_secs: LifetimeSecs = "10800";
        /// How long a registry access token lasts, in seconds, from 60 to 86400: one is asked for at every pull and
        /// push. It ends sooner with the credential it was got with. (ACR: 75 minutes.)
        token_access_secs: LifetimeSecs = "4500";
    }
    "Sign-in" {
        /// Whether people may sign in with a password of this server's directory. (Service principals and the admin
        /// user are not people.)
        sign_in_passwords: bool = "true";
        /// Whether a client may show a code that a person types on another device (`az login --use-device-code`).
        sign_in_device_codes: bool = "true";
        /// How long a person's sign-in lasts when it is not used, in days. Changing the password or disabling the
        /// person ends it at once.
        sign_in_idle_days: Positive = "14";
        /// How long a person's sign-in lasts when it is used, in days.
        sign_in_days_max: Positive = "90";
        /// The issuer of the organisation's own OpenID provider, where people may sign in instead:
        /// `https://login.example.com`. Its address to send people back to is
        /// `https://<this server>/common/oauth2/v2.0/callback`.
        openid_issuer: Option<String> = "";
        /// What the sign-in page calls that provider.
        openid_name: String = "your organisation";
        /// This server's client id there.
        openid_client_id: Option<String> = "";
        /// A file that holds this server's client secret there; without one it is a public client.
        openid_client_secret_file: Option<PathBuf> = "";
        /// A file with certificates (PEM) to trust for the provider beside those this machine trusts.
        openid_ca_file: Option<PathBuf> = "";
        /// The scopes that are asked for there.
        openid_scopes: String = "openid profile email";
        /// The claim of its id tokens that is the user name here.
        openid_user_claim: String = "email";
        /// The domains of user names that may come from there, separated by commas; empty for all.
        openid_domains: Option<String> = "";
        /// A claim that everybody who comes from there must have, as `NAME=VALUE`: `groups=registry-users`. A claim
        /// that is a list must hold the value.
        openid_required_claim: Option<String> = "";
        /// Whether somebody who comes from there for the first time becomes a user of this server's directory. Such
        /// a user holds no role until somebody assigns one.
        openid_create_users: bool = "false";
        /// Whether somebody who comes from there for the first time may be a user of the same name who is in the
        /// directory already, with that user's roles.
        openid_link_users: bool = "false";
        /// How long the sign-in of somebody from there lasts, in hours, before the provider is asked again.
        openid_session_hours: Positive = "12";
    }
    "Directory" {
        /// How old a signing key may grow before another signs in its place, in days. The old one goes on verifying
        /// what it signed until that has expired. 0 for never.
        signing_key_days_max: u32 = "90";
        /// A file with certificates (PEM) to trust, beside those this machine trusts, for the issuers of federated
        /// credentials.
        federation_ca_file: Option<PathBuf> = "";
        /// Which addresses may ask, as a virtual machine does in Azure (`/metadata/identity/oauth2/token`), for the
        /// tokens of which managed identities: `10.0.0.5=<client id>, 10.1.0.0/24=<client id>`. Whoever can send
        /// from such an address has the identity. Empty for none.
        managed_identity_addresses: IdentityAddresses = "";
    }
    "Builds" {
        /// Builds that run at the same time on this machine.
        build_parallel_max: Positive = "2";
        /// Whether this server carries out builds itself. Without, only `portolan worker` processes on the same
        /// database do.
        build_here: bool = "true";
        /// What this process is called where people read who carries out a build; the machine's name if empty.
        build_worker_name: Option<String> = "";
        /// Builds that run at the same time on all machines together; 0 for no limit.
        build_total_max: u32 = "0";
        /// Builds of one registry that run at the same time on all machines together; 0 for no limit.
        build_registry_max: u32 = "0";
        /// Builds that may wait at one time. More are refused.
        build_queue_max: Positive = "1000";
        /// Builds of one registry that may wait at one time.
        build_queue_registry_max: Positive = "500";
        /// After how many seconds a machine that carries out a build and is not heard of counts as lost. Its build
        /// is begun anew elsewhere.
        build_lost_secs: Positive = "30";
        /// How often a build is begun whose machine is lost each time, before it ends as failed.
        build_attempts_max: Positive = "3";
        /// The folder with QEMU's static user-mode emulators (`qemu-aarch64-static`), for images of other processors.
        build_emulators_dir: PathBuf = "/usr/bin";
        /// Steps of one build that run at the same time, where stages do not need each other; 0 for two for each
        /// processor, at least 8.
        build_steps_parallel_max: u32 = "0";
        /// Content that the build cache may keep in the store.
        build_cache_bytes_max: ByteSize = "20GiB";
        /// Whether builds may have things fetched from private networks (10.0.0.0/8, 192.168.0.0/16, fc00::/7 and their
        /// like): base images, repositories, archives. This machine itself, link-local addresses and the clouds'
        /// metadata services are closed to them in any case.
        build_fetch_private: bool = "true";
        /// What builds may fetch from whatever else is said: networks and host names, `10.1.0.0/16, git.corp.example,
        /// .lab.example`. A name with a dot in front stands for all below it.
        build_fetch_allow: FetchAllow = "";
        /// A file with certificates (PEM) to trust, beside those this machine trusts, where builds fetch from.
        build_fetch_ca_file: Option<PathBuf> = "";
        /// A folder of this machine whose repositories builds may use as `file://` addresses. Empty for none.
        build_git_folder: Option<PathBuf> = "";
        /// Files of build contexts kept on this machine, so that the next build of the same folder sends only what
        /// changed. 0 to keep none.
        build_contexts_bytes_max: ByteSize = "10GiB";
        /// Unpacked base images and step results kept ready on this machine for later builds. What is removed is
        /// unpacked again, or its step done again.
        build_snapshots_bytes_max: ByteSize = "40GiB";
        /// Folders of `RUN --mount=type=cache` kept on this machine, of all registries together.
        build_caches_bytes_max: ByteSize = "10GiB";
        /// Allow `RUN --network=host`: such a step reaches whatever this machine reaches, services that listen on
        /// its loopback address included.
        build_allow_host_network: bool = "false";
        /// Allow `RUN --security=insecure`: such a step may do anything to this machine. Only where everybody who may
        /// order a build may do so anyway.
        build_allow_insecure: bool = "false";
        /// Whether build steps run in user namespaces, in which their root is nobody on this machine: `auto` where
        /// the kernel can, else not, with the reason in the log; `required`: the server does not start where it
        /// cannot; `off`.
        build_user_namespace: BuildUserNamespace = "auto";
        /// Whether programs in build steps may get rights that who starts them has not. Needed where a step that is
        /// not root uses `sudo`.
        build_new_privileges: bool = "false";
        /// An OCI runtime that makes the sandboxes of build steps (`/usr/sbin/runc`). Empty for Portolan's own.
        build_runtime: Option<PathBuf> = "";
        /// Memory of one build step.
        build_memory_bytes_max: ByteSize = "4GiB";
        /// Processors of one build step; 0 for all.
        build_cpus_max: u32 = "0";
        /// Processes of one build step.
        build_pids_max: Positive = "4096";
        /// What one build step reads from and writes to the disk of the data folder in a second, each way; empty
        /// for no limit.
        build_io_bytes_per_sec_max: Option<ByteSize> = "";
        /// Bytes of the files that one build step writes.
        build_step_bytes_max: ByteSize = "20GiB";
        /// Files, folders and links that one build step makes.
        build_step_files_max: Positive = "2000000";
        /// Bytes of the files that all steps of a build write.
        build_bytes_max: ByteSize = "60GiB";
        /// What stays free of the disk of the data folder: a build step that writes when there is less is ended.
        build_free_bytes_min: ByteSize = "1GiB";
        /// What one build step may print; the rest is thrown away.
        build_output_bytes_max: ByteSize = "64MiB";
        /// The network of build steps. `own`: each step has a network of its own, out of which it reaches over TCP
        /// what the next two settings let it; `host`: what this machine reaches, services on its loopback address
        /// included; `none`: nothing; `auto`: `own` where the kernel can, else `host`, with a warning.
        build_network: BuildNetwork = "auto";
        /// What build steps do not reach from a network of their own: networks, addresses and names, each with or
        /// without ports, and the words `host` (all addresses of this machine), `metadata` (link-local addresses,
        /// and where clouds tell machines their secrets), `private` (private networks) and `*` (everything).
        build_network_deny: Reach = "host, metadata";
        /// What build steps reach although it is denied, written in the same way. With `*` denied it is all they
        /// reach. Names hold for the addresses that the step got by asking for them.
        build_network_allow: Reach = "";
    }
}
