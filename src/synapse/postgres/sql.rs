//! Names and literals as SQL text: the only two ways by which a value of ours gets into a statement.
//!
//! Both hold with `standard_conforming_strings = on`, which every session of ours sets, and inside `psql`: neither
//! variables nor backslash commands are looked for inside quotes.

/// A name in double quotes.
pub fn name(raw: &str) -> String {
    format!("\"{}\"", raw.replace('"', "\"\""))
}

/// A name in its schema.
pub fn qualified(schema: &str, raw: &str) -> String {
    format!("{}.{}", name(schema), name(raw))
}

/// A string literal in single quotes.
pub fn literal(raw: &str) -> String {
    format!("'{}'", raw.replace('\'', "''"))
}

/// Literals with commas between them, for `IN (…)`.
pub fn literals<'a>(raw: impl IntoIterator<Item = &'a str>) -> String {
    raw.into_iter().map(literal).collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quotes_inside_names_and_literals_are_doubled() {
        assert_eq!(name(r#"a"b c"#), r#""a""b c""#);
        assert_eq!(qualified("S", "t.u"), r#""S"."t.u""#);
        assert_eq!(literal(r"it's \n"), r"'it''s \n'");
        assert_eq!(literals(["a", "b'"]), "'a','b'''");
    }
}
