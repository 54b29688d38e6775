//! Names that look like another name: what an error suggests.

/// How many names an error suggests.
const SUGGESTIONS: usize = 3;

/// Up to three of `names` that look like `wanted`, the nearest first.
pub(crate) fn near<'a>(wanted: &str, names: impl Iterator<Item = &'a str>) -> Vec<String> {
    let limit = (wanted.len() / 3).max(2);
    let mut found: Vec<_> =
        names.map(|name| (distance(wanted, name), name)).filter(|&(distance, _)| distance <= limit).collect();
    found.sort_unstable();
    found.truncate(SUGGESTIONS);
    found.into_iter().map(|(_, name)| name.to_owned()).collect()
}

/// Edits between two names; a missing prefix (`transformer.`) counts as one.
fn distance(a: &str, b: &str) -> usize {
    if a != b && !a.is_empty() && !b.is_empty() && (a.ends_with(b) || b.ends_with(a)) {
        return 1;
    }
    levenshtein(a.as_bytes(), b.as_bytes())
}

fn levenshtein(a: &[u8], b: &[u8]) -> usize {
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.iter().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.iter().enumerate() {
            let substituted = diagonal + usize::from(x != y);
            diagonal = row[j + 1];
            row[j + 1] = substituted.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distances() {
        assert_eq!(levenshtein(b"", b"abc"), 3);
        assert_eq!(levenshtein(b"kitten", b"sitting"), 3);
        assert_eq!(distance("transformer.wte.weight", "wte.weight"), 1);
        assert_eq!(distance("same", "same"), 0);
    }

    #[test]
    fn the_nearest_come_first_and_strangers_never() {
        let names = ["h.0.ln_1.bias", "h.0.ln_1.weight", "h.0.ln_2.weight", "wpe.weight"];
        assert_eq!(near("h.0.ln1.weight", names.into_iter()), ["h.0.ln_1.weight", "h.0.ln_2.weight"]);
        assert!(near("zzz", names.into_iter()).is_empty());
    }
}
