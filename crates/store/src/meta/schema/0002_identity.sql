-- Who there is, what they may do, and where registries live.
--
-- setting             one value for each name: tenant, subscription
-- resource_group      made by PUT, deleted with everything in it
-- registry            one row for each registry; `id` is never used twice, so what a deleted
--                     registry leaves behind in other tables can be met by nobody
-- directory_principal users, service principals, managed identities of the directory
-- principal_secret    hashes of their secrets; die with their principal
-- signing_key         private signing keys, sealed under the master key; the one that is not
--                     inactive signs, all verify; deleted when nothing they signed is alive
-- role_assignment     who holds which role where; rows of a scope die with the scope
--
-- `key` columns are the lower-case forms that ARM's names are compared in.

CREATE TABLE setting (
    name  TEXT NOT NULL PRIMARY KEY,
    value TEXT NOT NULL
);

CREATE TABLE resource_group (
    key      TEXT   NOT NULL PRIMARY KEY,
    name     TEXT   NOT NULL,
    location TEXT   NOT NULL,
    -- JSON object of texts.
    tags     TEXT   NOT NULL,
    created  BIGINT NOT NULL,
    updated  BIGINT NOT NULL
);

CREATE TABLE registry (
    id                BIGINT NOT NULL PRIMARY KEY,
    key               TEXT   NOT NULL UNIQUE,
    name              TEXT   NOT NULL,
    group_key         TEXT   NOT NULL REFERENCES resource_group (key),
    location          TEXT   NOT NULL,
    sku               TEXT   NOT NULL,
    -- 1 for the registry that answers at the server's own address when there is no domain.
    is_default        BIGINT NOT NULL,
    admin_enabled     BIGINT NOT NULL,
    -- How often each admin password was renewed; the passwords are derived, not stored.
    admin_generation  BIGINT NOT NULL,
    admin_generation2 BIGINT NOT NULL,
    -- JSON object of texts.
    tags              TEXT   NOT NULL,
    -- JSON object: the settable members of ARM's `properties` that have no column.
    properties        TEXT   NOT NULL,
    created           BIGINT NOT NULL,
    updated           BIGINT NOT NULL
);
CREATE INDEX registry_group ON registry (group_key);

CREATE TABLE directory_principal (
    object_id    TEXT   NOT NULL PRIMARY KEY,
    app_id       TEXT   UNIQUE,
    -- `ServicePrincipal`, `User`, `ManagedIdentity`
    kind         TEXT   NOT NULL,
    display_name TEXT   NOT NULL,
    enabled      BIGINT NOT NULL,
    -- Tokens issued before this time are refused.
    valid_from   BIGINT NOT NULL,
    created      BIGINT NOT NULL
);

CREATE TABLE principal_secret (
    id        TEXT   NOT NULL PRIMARY KEY,
    principal TEXT   NOT NULL REFERENCES directory_principal (object_id) ON DELETE CASCADE,
    name      TEXT   NOT NULL,
    -- Version byte, salt, hash: see `auth::password`.
    hash      BLOB   NOT NULL,
    created   BIGINT NOT NULL,
    expires   BIGINT
);
CREATE INDEX principal_secret_principal ON principal_secret (principal);

CREATE TABLE signing_key (
    kid            TEXT   NOT NULL PRIMARY KEY,
    sealed         BLOB   NOT NULL,
    created        BIGINT NOT NULL,
    -- When another key began to sign in its place.
    inactive_since BIGINT
);

CREATE TABLE role_assignment (
    id        TEXT   NOT NULL PRIMARY KEY,
    scope_key TEXT   NOT NULL,
    scope     TEXT   NOT NULL,
    principal TEXT   NOT NULL,
    role      TEXT   NOT NULL,
    created   BIGINT NOT NULL,
    UNIQUE (scope_key, principal, role)
);
CREATE INDEX role_assignment_principal ON role_assignment (principal);
