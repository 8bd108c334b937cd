//! Just enough of Rust's grammar to tell code from comments and literals.

/// The code of a Rust source: comments, and what is between quotes, become spaces. Line breaks
/// stay, so that line numbers do.
pub fn code_only(source: &str) -> String {
    let mut code = String::with_capacity(source.len());
    let mut rest = source;
    while let Some(first) = rest.chars().next() {
        let skipped = skipped_len(rest, code.chars().next_back());
        if skipped == 0 {
            code.push(first);
            rest = &rest[first.len_utf8()..];
            continue;
        }
        let (blank, next) = rest.split_at(skipped);
        code.extend(blank.chars().map(|c| if c == '\n' { '\n' } else { ' ' }));
        rest = next;
    }
    code
}

/// The part of a source before its tests, by the line `#[cfg(test)]` that begins in column 0.
pub fn before_tests(source: &str) -> &str {
    let start = if source.starts_with("#[cfg(test)]") { Some(0) } else { None };
    let end = start.or_else(|| source.find("\n#[cfg(test)]").map(|at| at + 1));
    &source[..end.unwrap_or(source.len())]
}

/// Words of a text, with the number of their line: runs of letters and digits, and underscores.
pub fn identifiers(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let is_part = |c: char| c.is_alphanumeric() || c == '_';
    let words = text.lines().enumerate().flat_map(move |(index, line)| {
        line.split(move |c| !is_part(c)).map(move |word| (index + 1, word))
    });
    words.filter(|(_, word)| !word.is_empty())
}

/// Bytes at the start of `rest` that are a comment or a literal; 0 if it begins with code.
fn skipped_len(rest: &str, before: Option<char>) -> usize {
    if rest.starts_with("//") {
        return rest.find('\n').unwrap_or(rest.len());
    }
    if rest.starts_with("/*") {
        return block_comment_len(rest);
    }
    let in_word = before.is_some_and(|c| c.is_alphanumeric() || c == '_');
    match rest.as_bytes()[0] {
        b'"' => string_len(rest),
        b'\'' => char_len(rest),
        b'r' | b'b' | b'c' if !in_word => raw_string_len(rest),
        _ => 0,
    }
}

/// Length of a block comment; they nest.
fn block_comment_len(rest: &str) -> usize {
    let bytes = rest.as_bytes();
    let (mut depth, mut at) = (0_usize, 0);
    while at < bytes.len() {
        if bytes[at..].starts_with(b"/*") {
            depth += 1;
            at += 2;
        } else if bytes[at..].starts_with(b"*/") {
            depth -= 1;
            at += 2;
            if depth == 0 {
                return at;
            }
        } else {
            at += 1;
        }
    }
    rest.len()
}

/// Length of a string literal with escapes, quotes included.
fn string_len(rest: &str) -> usize {
    let mut escaped = false;
    for (at, c) in rest.char_indices().skip(1) {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '"' => return at + 1,
            _ => {}
        }
    }
    rest.len()
}

/// Length of a character literal; 0 if it is a lifetime.
fn char_len(rest: &str) -> usize {
    let mut chars = rest.char_indices().skip(1);
    match chars.next() {
        // The character after the backslash may itself be a quote.
        Some((_, '\\')) => rest[3..].find('\'').map_or(rest.len(), |at| at + 4),
        Some(_) => match chars.next() {
            Some((at, '\'')) => at + 1,
            _ => 0,
        },
        None => 0,
    }
}

/// Length of a raw string literal such as `r"…"`, `br#"…"#`; 0 if it is none.
fn raw_string_len(rest: &str) -> usize {
    let Some(raw) = rest.trim_start_matches(['b', 'c']).strip_prefix('r') else {
        return 0;
    };
    let hashes = raw.len() - raw.trim_start_matches('#').len();
    if !raw[hashes..].starts_with('"') {
        return 0;
    }
    let prefix_len = rest.len() - raw.len() + hashes + 1;
    let end = format!("\"{}", "#".repeat(hashes));
    rest[prefix_len..].find(&end).map_or(rest.len(), |at| prefix_len + at + end.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn squeezed(source: &str) -> String {
        code_only(source).split_whitespace().collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn comments_are_not_code() {
        assert_eq!(squeezed("a // b\nc /* d /* e */ f */ g"), "a c g");
        assert_eq!(squeezed("/// crate::tree\nfn x() {}"), "fn x() {}");
    }

    #[test]
    fn literals_are_not_code() {
        assert_eq!(squeezed(r#"a("b \" // c") d"#), "a( ) d");
        assert_eq!(squeezed(r###"a(r#"b " c"#) d"###), "a( ) d");
        assert_eq!(squeezed(r#"a(br"\") b"#), "a( ) b");
        assert_eq!(squeezed(r"a('\'') b('x') c('\u{1f}')"), "a( ) b( ) c( )");
    }

    #[test]
    fn lifetimes_and_raw_identifiers_are_code() {
        assert_eq!(squeezed("fn a<'a>(x: &'a str, r#in: u8)"), "fn a<'a>(x: &'a str, r#in: u8)");
        assert_eq!(squeezed("for_each(r, b)"), "for_each(r, b)");
    }

    #[test]
    fn lines_keep_their_numbers() {
        assert_eq!(code_only("/*\n*/ a \"\n\" b").lines().count(), 3);
    }

    #[test]
    fn tests_begin_at_the_attribute_in_column_0() {
        assert_eq!(before_tests("a\n#[cfg(test)]\nmod tests {}"), "a\n");
        assert_eq!(before_tests("a\n    #[cfg(test)]\nb"), "a\n    #[cfg(test)]\nb");
        assert_eq!(before_tests("#[cfg(test)]\nb"), "");
    }
}
