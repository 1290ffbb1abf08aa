//! Sentences that fit a terminal.

/// Breaks each line of a text between words, so that none is wider than `width` where words allow it. The
/// first begins with `first`, and all others with as many spaces. Without a width only the text's own lines
/// are told apart.
pub fn wrap(first: &str, text: &str, width: Option<usize>) -> String {
    let indent = " ".repeat(first.chars().count());
    let room = width.map(|width| width.saturating_sub(indent.len()).max(20));
    let mut out = String::new();
    let mut before = first;
    for line in text.lines() {
        let mut used = 0;
        out.push_str(before);
        before = &indent;
        for word in line.split(' ') {
            let length = word.chars().count();
            if used > 0 && room.is_some_and(|room| used + 1 + length > room) {
                out.push('\n');
                out.push_str(&indent);
                used = 0;
            } else if used > 0 {
                out.push(' ');
                used += 1;
            }
            out.push_str(word);
            used += length;
        }
        out.push('\n');
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_stay_whole_and_lines_stay_apart() {
        let text = "one two three four five six seven\neight";
        for (width, expected) in [
            (None, "- one two three four five six seven\n  eight\n"),
            (Some(24), "- one two three four\n  five six seven\n  eight\n"),
            // What is too narrow for anything is taken for wider than it is.
            (Some(3), "- one two three four\n  five six seven\n  eight\n"),
        ] {
            assert_eq!(wrap("- ", text, width), expected, "{width:?}");
        }
        let long = "a-word-that-is-wider-than-the-terminal x";
        assert_eq!(wrap("", long, Some(20)), "a-word-that-is-wider-than-the-terminal\nx\n");
    }
}
