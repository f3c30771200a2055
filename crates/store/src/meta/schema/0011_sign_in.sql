-- Sign-ins that are under way, and who people are at an organisation's own provider.
--
-- sign_in_device  a client that waits for a person to sign in elsewhere; goes when its tokens
--                 were fetched, or some time after it expired
-- sign_in_code    authorization codes that were redeemed, until they would have expired
--                 anyway: none is redeemed twice, on whichever server
-- sign_in_link    people of another provider, by the name that never changes there; dies
--                 with the principal
--
-- Refresh tokens, authorization codes and the state of sign-in pages are sealed texts that
-- clients hold: see `auth::ticket`.

CREATE TABLE sign_in_device (
    -- SHA-256 of the device code, in hex.
    device    TEXT   NOT NULL PRIMARY KEY,
    -- What the person types, without its hyphen.
    user_code TEXT   NOT NULL UNIQUE,
    client    TEXT   NOT NULL,
    scope     TEXT   NOT NULL,
    -- Where it was started: for the person to see, and to bound how many one client starts.
    address   TEXT   NOT NULL,
    -- `waiting`, `allowed`, `refused`
    state     TEXT   NOT NULL,
    principal TEXT,
    method    TEXT,
    signed_in BIGINT,
    created   BIGINT NOT NULL,
    expires   BIGINT NOT NULL
);
CREATE INDEX sign_in_device_expires ON sign_in_device (expires);
CREATE INDEX sign_in_device_address ON sign_in_device (address);

CREATE TABLE sign_in_code (
    id      TEXT   NOT NULL PRIMARY KEY,
    expires BIGINT NOT NULL
);
CREATE INDEX sign_in_code_expires ON sign_in_code (expires);

CREATE TABLE sign_in_link (
    issuer    TEXT   NOT NULL,
    subject   TEXT   NOT NULL,
    principal TEXT   NOT NULL REFERENCES directory_principal (object_id) ON DELETE CASCADE,
    created   BIGINT NOT NULL,
    PRIMARY KEY (issuer, subject)
);
CREATE INDEX sign_in_link_principal ON sign_in_link (principal);
