-- The directory: what people and programs are called, and what they prove who they are with.
--
-- Who writes: the functions of meta::{principal, application, credential, federated,
-- managed_identity}, called by service::directory.
--
-- directory_application what an application is; its service principal, if it has one, is the
--                       row of directory_principal with the same `app_id`
-- directory_credential  passwords (hashes) and certificates of users, service principals and
--                       applications; dies with its owner. Takes the place of principal_secret
-- federated_credential  whose tokens of which OpenID issuer are as good as a credential of an
--                       application or a managed identity; dies with its owner
-- managed_identity      where in the control plane a managed identity is; dies with its
--                       principal
--
-- `key` columns are the lower-case forms that names are compared in.

-- What a user signs in with, in lower case and as it was given; nobody else has one.
ALTER TABLE directory_principal ADD COLUMN user_key TEXT;
ALTER TABLE directory_principal ADD COLUMN user_name TEXT;
-- JSON object: the members that Graph sets and nothing here depends on.
ALTER TABLE directory_principal ADD COLUMN properties TEXT NOT NULL DEFAULT '{}';
CREATE UNIQUE INDEX directory_principal_user ON directory_principal (user_key);

CREATE TABLE directory_application (
    object_id    TEXT   NOT NULL PRIMARY KEY,
    app_id       TEXT   NOT NULL UNIQUE,
    display_name TEXT   NOT NULL,
    -- JSON object: the members that Graph sets and nothing here depends on.
    properties   TEXT   NOT NULL,
    created      BIGINT NOT NULL
);

CREATE TABLE directory_credential (
    id      TEXT   NOT NULL PRIMARY KEY,
    -- The object id of a principal or an application.
    owner   TEXT   NOT NULL,
    -- `password` or `certificate`
    kind    TEXT   NOT NULL,
    name    TEXT,
    -- A password's hash (see `auth::password`), or a certificate in DER.
    value   BLOB   NOT NULL,
    -- The first characters of a password that the server made, to tell one from another.
    hint    TEXT,
    created BIGINT NOT NULL,
    -- Not good before, and not from then on.
    starts  BIGINT,
    expires BIGINT
);
CREATE INDEX directory_credential_owner ON directory_credential (owner);
INSERT INTO directory_credential (id, owner, kind, name, value, created, expires)
    SELECT id, principal, 'password', name, hash, created, expires FROM principal_secret;
DROP TABLE principal_secret;

CREATE TABLE federated_credential (
    id          TEXT   NOT NULL PRIMARY KEY,
    -- The object id of an application, or of a managed identity's principal.
    owner       TEXT   NOT NULL,
    key         TEXT   NOT NULL,
    name        TEXT   NOT NULL,
    issuer      TEXT   NOT NULL,
    subject     TEXT   NOT NULL,
    -- JSON array of texts.
    audiences   TEXT   NOT NULL,
    description TEXT,
    created     BIGINT NOT NULL,
    UNIQUE (owner, key)
);

CREATE TABLE managed_identity (
    principal TEXT   NOT NULL PRIMARY KEY REFERENCES directory_principal (object_id) ON DELETE CASCADE,
    group_key TEXT   NOT NULL REFERENCES resource_group (key),
    key       TEXT   NOT NULL,
    name      TEXT   NOT NULL,
    location  TEXT   NOT NULL,
    -- JSON object of texts.
    tags      TEXT   NOT NULL,
    updated   BIGINT NOT NULL,
    UNIQUE (group_key, key)
);
