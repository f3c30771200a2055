-- Tags in the order they are listed in: "lexical order (i.e. case-insensitive alphanumeric
-- order)" (OCI distribution-spec 1.1, "Listing Tags"); of tags that differ in case alone the
-- upper-case one is first. Written by meta::tag; read by its lists by name.

CREATE INDEX tag_order ON tag (repo, lower(name), name);
