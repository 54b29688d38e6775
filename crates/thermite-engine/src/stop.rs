//! Stop strings: where a text ends, although the model would go on.

/// A stop string was empty: it would end every text before its start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("stop string {} is empty", index + 1)]
pub struct EmptyStop {
    /// Its place among the stop strings, from 0.
    pub index: usize,
}

/// What may be shown after a piece of text, and whether the text has ended.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Stopping {
    /// Text that is surely before any stop string.
    pub text: String,
    /// The stop string (by its place) that ended the text.
    pub stopped_by: Option<usize>,
}

/// Finds stop strings in a text that comes in pieces.
///
/// The text ends where the first stop string to be complete begins; of two complete at the same
/// place, the longer counts. Text that may be the beginning of a stop string is held back until it
/// is known; all other text comes out with the piece it came in.
#[derive(Debug, Clone, Default)]
pub struct StopMatcher {
    stops: Vec<Progress>,
    held: String,
    stopped: bool,
}

impl StopMatcher {
    /// A matcher for these stop strings (none: all text comes out at once).
    ///
    /// # Errors
    /// [`EmptyStop`] if one of them is empty.
    pub fn new<S: AsRef<str>>(stops: impl IntoIterator<Item = S>) -> Result<Self, EmptyStop> {
        let stops = stops.into_iter().enumerate().map(|(index, stop)| {
            let stop = stop.as_ref().as_bytes();
            if stop.is_empty() {
                return Err(EmptyStop { index });
            }
            Ok(Progress::new(stop))
        });
        Ok(Self { stops: stops.collect::<Result<_, _>>()?, held: String::new(), stopped: false })
    }

    /// Takes the next piece of text. After a stop nothing comes out any more.
    pub fn push(&mut self, piece: &str) -> Stopping {
        if self.stopped {
            return Stopping::default();
        }
        let fresh = self.held.len();
        self.held.push_str(piece);
        for position in fresh..self.held.len() {
            let byte = self.held.as_bytes()[position];
            let mut ended: Option<(usize, usize)> = None;
            for (index, stop) in self.stops.iter_mut().enumerate() {
                let longer = ended.is_none_or(|(_, len)| stop.stop.len() > len);
                if stop.advance(byte) && longer {
                    ended = Some((index, stop.stop.len()));
                }
            }
            if let Some((index, len)) = ended {
                self.stopped = true;
                self.held.truncate(position + 1 - len);
                return Stopping { text: std::mem::take(&mut self.held), stopped_by: Some(index) };
            }
        }
        let hold = self.stops.iter().map(|stop| stop.matched).max();
        let sure = self.held.len() - hold.unwrap_or(0);
        let held = self.held.split_off(sure);
        Stopping { text: std::mem::replace(&mut self.held, held), stopped_by: None }
    }

    /// Ends the text: gives what was held back.
    pub fn finish(self) -> String {
        self.held
    }
}

/// How much of one stop string the text so far ends with (Knuth, Morris and Pratt 1977).
#[derive(Debug, Clone)]
struct Progress {
    stop: Box<[u8]>,
    /// For each length matched, the longest shorter one that the same text ends with too.
    shorter: Box<[usize]>,
    matched: usize,
}

impl Progress {
    fn new(stop: &[u8]) -> Self {
        let mut shorter = vec![0; stop.len()];
        let mut matched = 0;
        for (i, &byte) in stop.iter().enumerate().skip(1) {
            while matched > 0 && stop[matched] != byte {
                matched = shorter[matched - 1];
            }
            matched += usize::from(stop[matched] == byte);
            shorter[i] = matched;
        }
        Self { stop: stop.into(), shorter: shorter.into(), matched: 0 }
    }

    /// Takes the next byte of a text without the stop string so far; says whether it is complete now.
    fn advance(&mut self, byte: u8) -> bool {
        while self.matched > 0 && self.stop[self.matched] != byte {
            self.matched = self.shorter[self.matched - 1];
        }
        self.matched += usize::from(self.stop[self.matched] == byte);
        self.matched == self.stop.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn run(stops: &[&str], pieces: &[&str]) -> (Vec<String>, Option<usize>, String) {
        let mut matcher = StopMatcher::new(stops).unwrap();
        let mut stopped = None;
        let texts = pieces.iter().map(|piece| {
            let step = matcher.push(piece);
            stopped = stopped.or(step.stopped_by);
            step.text
        });
        let texts = texts.collect();
        (texts, stopped, matcher.finish())
    }

    #[test]
    fn a_possible_beginning_is_held_back() {
        let (texts, stopped, rest) = run(&["END"], &["a E", "N", "x", " EN", "D more"]);
        assert_eq!(texts, ["a ", "", "ENx", " ", ""]);
        assert_eq!((stopped, rest.as_str()), (Some(0), ""));
    }

    #[test]
    fn what_was_held_back_comes_out_at_the_end() {
        let (texts, stopped, rest) = run(&["\n\n"], &["line\n"]);
        assert_eq!((texts, stopped), (vec!["line".to_owned()], None));
        assert_eq!(rest, "\n");
    }

    #[test]
    fn the_first_to_be_complete_wins_and_then_the_longer() {
        assert_eq!(run(&["abcd", "bc"], &["abcd"]), (vec!["a".into()], Some(1), String::new()));
        assert_eq!(run(&["c", "abc"], &["zab", "c"]).1, Some(1));
        assert_eq!(run(&["c", "abc"], &["zab", "c"]).0, ["z", ""]);
    }

    #[test]
    fn no_stops_hold_nothing_and_an_empty_one_is_an_error() {
        assert_eq!(run(&[], &["a", "b"]).0, ["a", "b"]);
        assert_eq!(StopMatcher::new(["a", ""]).unwrap_err(), EmptyStop { index: 1 });
    }

    /// The same by search: where the text ends, and by which stop.
    fn naive_end(text: &str, stops: &[String]) -> Option<(usize, usize)> {
        let found = stops.iter().enumerate().filter_map(|(index, stop)| {
            let start = text.find(stop.as_str())?;
            Some((start + stop.len(), start, index))
        });
        found.min().map(|(_, start, index)| (start, index))
    }

    /// The longest end of the text that a stop string may begin with.
    fn naive_hold(text: &str, stops: &[String]) -> usize {
        let starts = (0..text.len()).filter(|&i| text.is_char_boundary(i));
        let may_begin = |&i: &usize| stops.iter().any(|stop| stop.starts_with(&text[i..]));
        starts.into_iter().find(may_begin).map_or(0, |i| text.len() - i)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2000))]

        #[test]
        fn pieces_agree_with_a_search_of_the_whole(
            stops in prop::collection::vec("[abé]{1,5}", 0..4),
            pieces in prop::collection::vec("[abécé🦀]{0,5}", 0..10),
        ) {
            let mut matcher = StopMatcher::new(&stops).unwrap();
            let (mut text, mut shown) = (String::new(), String::new());
            for piece in &pieces {
                text.push_str(piece);
                let step = matcher.push(piece);
                shown.push_str(&step.text);
                if let Some((start, index)) = naive_end(&text, &stops) {
                    // Alike stops end alike: which of them is named does not matter.
                    let named = step.stopped_by.map(|by| stops[by].as_str());
                    prop_assert_eq!(named, Some(stops[index].as_str()));
                    prop_assert_eq!(shown, &text[..start]);
                    prop_assert_eq!(matcher.push("more"), Stopping::default());
                    prop_assert_eq!(matcher.finish(), "");
                    return Ok(());
                }
                prop_assert_eq!(step.stopped_by, None);
                prop_assert_eq!(&shown, &text[..text.len() - naive_hold(&text, &stops)]);
            }
            shown.push_str(&matcher.finish());
            prop_assert_eq!(shown, text);
        }
    }
}
