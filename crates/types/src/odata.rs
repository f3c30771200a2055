//! The part of OData's filter grammar that the control plane and the directory share: texts.

/// The text at the start of `rest` (`'it''s'`: two quotes stand for one), and what follows it.
/// None where no text begins, or where it does not end. Source: OData 4.01, ABNF rule `string`.
pub fn quoted(rest: &str) -> Option<(String, &str)> {
    let mut rest = rest.strip_prefix('\'')?;
    let mut value = String::new();
    loop {
        let end = rest.find('\'')?;
        value.push_str(&rest[..end]);
        rest = &rest[end + 1..];
        match rest.strip_prefix('\'') {
            Some(more) => {
                value.push('\'');
                rest = more;
            }
            None => return Some((value, rest)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts() {
        let good = [
            ("'a'", "a", ""),
            ("'it''s' and", "it's", " and"),
            ("'''' x", "'", " x"),
            ("''", "", ""),
            ("'ü'b", "ü", "b"),
        ];
        for (given, value, rest) in good {
            assert_eq!(quoted(given), Some((value.to_owned(), rest)), "{given}");
        }
        for given in ["", "a", "'", "'a", "'a''", " 'a'"] {
            assert_eq!(quoted(given), None, "{given}");
        }
    }
}
