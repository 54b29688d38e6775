//! Any text as a chat template: an error or a text, in bounded time and memory, whatever it calls; and what the marks
//! find is what is rendered without them.
//! `cargo fuzz run chat_template -- -timeout=10 -rss_limit_mb=1024`.
#![no_main]

use libfuzzer_sys::fuzz_target;
use thermite_engine::chat::{ChatTemplate, Conversation, Message};

fuzz_target!(|source: &str| {
    let Ok(template) = ChatTemplate::new(source, "fuzzed", Some("<s>"), Some("</s>")) else {
        return;
    };
    let messages = [
        Message::new("system", "Be short."),
        Message::new("user", " Hi <|im_end|> é\n"),
        Message::new("assistant", "{\"a\": [1, 2.5, null]}"),
    ];
    let conversation =
        Conversation::new(&messages).with_tools(&[[("name", "clock")]]).with("date_string", "1 Jan 2025");
    let _ = template.render(&conversation);
    if let Ok(prompt) = template.prompt(&conversation, ["<|im_end|>", "<s>"]) {
        assert!(
            prompt.breaks.is_sorted()
                && prompt.breaks.iter().all(|&place| prompt.text.is_char_boundary(place))
        );
    }
});
