//! `thermite tokenize`.

use std::fmt::Write;

use serde::Serialize;
use thermite_engine::{Tokenizer, load_tokenizer, open_model};
use unicode_width::UnicodeWidthStr;

use crate::cli::TokenizeArgs;
use crate::commands::generate::counted;
use crate::error::Error;
use crate::output::{given_text, print, print_json, printable};

/// What `--json` prints.
#[derive(Serialize)]
struct Report {
    ids: Vec<u32>,
    /// The tokens' spellings in the vocabulary.
    pieces: Vec<String>,
}

pub(crate) fn run(args: &TokenizeArgs) -> Result<(), Error> {
    let text = given_text(args.text.as_deref(), args.file.as_deref())?;
    let tokenizer = load_tokenizer(&open_model(&args.model)?)?;
    let special = !args.no_special;
    let ids = tokenizer.encode(&text, special, special).map_err(thermite_engine::Error::from)?;
    if args.json {
        let pieces = ids.iter().map(|&id| tokenizer.token_piece(id).unwrap_or_default()).collect();
        return print_json(&Report { ids, pieces });
    }
    print(&table(&tokenizer, &ids))
}

/// A line a token: id, text, spelling.
fn table(tokenizer: &Tokenizer, ids: &[u32]) -> String {
    let cells: Vec<[String; 3]> = ids
        .iter()
        .map(|&id| {
            let bytes = tokenizer.bytes(id).unwrap_or_default();
            let piece = tokenizer.token_piece(id).unwrap_or_default();
            [id.to_string(), quoted(&bytes), printable(&piece)]
        })
        .collect();
    let width = |column: usize, title: &str| {
        cells.iter().map(|row| row[column].width()).max().unwrap_or(0).max(title.len())
    };
    let (id_width, text_width) = (width(0, "id"), width(1, "text"));
    let mut out = String::new();
    if !cells.is_empty() {
        let _ = writeln!(out, "{:>id_width$}  {:<text_width$}  piece", "id", "text");
    }
    for [id, text, piece] in &cells {
        // padded by hand: `format!` counts characters, a terminal columns
        let pad = text_width - text.width();
        let _ = writeln!(out, "{id:>id_width$}  {text}{:pad$}  {piece}", "");
    }
    let _ = writeln!(out, "{}", counted(cells.len()));
    out
}

/// Bytes as a string between quotes, those that are no UTF-8 as `\xE2`.
fn quoted(bytes: &[u8]) -> String {
    let mut out = String::from("\"");
    for chunk in bytes.utf8_chunks() {
        for c in chunk.valid().chars() {
            match c {
                '"' | '\\' => out.extend(['\\', c]),
                _ if c.is_control() => out.extend(c.escape_default()),
                _ => out.push(c),
            }
        }
        for byte in chunk.invalid() {
            let _ = write!(out, "\\x{byte:02X}");
        }
    }
    out.push('"');
    out
}
