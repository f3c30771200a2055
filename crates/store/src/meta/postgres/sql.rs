//! The one text of a statement, in PostgreSQL's words.

/// `?1` becomes `$1`; in statements that make tables, `BLOB` becomes `BYTEA` and `TEXT`
/// sorts by bytes, as it does on SQLite. What stands in quotes or comments stays.
pub(super) fn rewritten(sql: &str) -> String {
    let start = without_comments(sql);
    let makes_columns = ["CREATE TABLE", "ALTER TABLE"].iter().any(|word| start.starts_with(word));
    let mut out = String::with_capacity(sql.len() + 64);
    let mut rest = sql;
    while let Some(c) = rest.chars().next() {
        let taken = match c {
            '\'' | '"' => rest[1..].find(c).map_or(rest.len(), |end| end + 2),
            '-' if rest.starts_with("--") => rest.find('\n').unwrap_or(rest.len()),
            '?' => {
                out.push('$');
                rest = &rest[1..];
                continue;
            }
            c if c.is_ascii_alphanumeric() || c == '_' => {
                let end = rest.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(rest.len());
                let word = match &rest[..end] {
                    "BLOB" if makes_columns => "BYTEA",
                    "TEXT" if makes_columns => "TEXT COLLATE \"C\"",
                    word => word,
                };
                out.push_str(word);
                rest = &rest[end..];
                continue;
            }
            c => c.len_utf8(),
        };
        out.push_str(&rest[..taken]);
        rest = &rest[taken..];
    }
    out
}

/// Whether a statement may change something; what only reads need not be done again when a
/// closure's work is.
pub(super) fn writes(sql: &str) -> bool {
    !without_comments(sql).starts_with("SELECT")
}

/// A statement from its first word on.
fn without_comments(sql: &str) -> &str {
    let mut rest = sql.trim_start();
    while rest.starts_with("--") {
        rest = rest.find('\n').map_or("", |end| rest[end..].trim_start());
    }
    rest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_and_types() {
        assert_eq!(rewritten("SELECT a FROM b WHERE c = ?1 AND d = ?12"), "SELECT a FROM b WHERE c = $1 AND d = $12");
        assert_eq!(rewritten("SELECT '?1 TEXT', \"?2\" -- ?3\n, ?4"), "SELECT '?1 TEXT', \"?2\" -- ?3\n, $4");
        assert_eq!(
            rewritten("CREATE TABLE blob (text TEXT NOT NULL, b BLOB DEFAULT 'BLOB', é TEXT)"),
            "CREATE TABLE blob (text TEXT COLLATE \"C\" NOT NULL, b BYTEA DEFAULT 'BLOB', é TEXT COLLATE \"C\")"
        );
        assert_eq!(rewritten("-- TEXT\n\n-- b\nCREATE TABLE a (b BLOB)"), "-- TEXT\n\n-- b\nCREATE TABLE a (b BYTEA)");
        assert_eq!(rewritten("ALTER TABLE a ADD COLUMN b BLOB"), "ALTER TABLE a ADD COLUMN b BYTEA");
        assert_eq!(rewritten("SELECT CAST(?1 AS TEXT)"), "SELECT CAST($1 AS TEXT)");
        assert_eq!(rewritten("SELECT 'it''s', 'open"), "SELECT 'it''s', 'open");
    }

    #[test]
    fn what_writes() {
        assert!(!writes(" SELECT 1") && writes("INSERT INTO a") && writes("WITH a AS (DELETE FROM b) SELECT 1"));
    }
}
