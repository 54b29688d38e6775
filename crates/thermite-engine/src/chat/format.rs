//! Formats of well-known families, for models that bring no template but have the tokens of one.

use super::{ChatTemplate, ChatTemplates};
use crate::tokenizer::Tokenizer;

/// A family's format.
struct Format {
    name: &'static str,
    /// The special tokens by which it is known.
    tokens: &'static [&'static str],
    template: &'static str,
}

const FORMATS: [Format; 3] = [
    Format {
        name: "ChatML",
        tokens: &["<|im_start|>", "<|im_end|>"],
        template: "\
{%- for message in messages %}
{{ '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}",
    },
    Format {
        name: "Gemma's format",
        tokens: &["<start_of_turn>", "<end_of_turn>"],
        // there is no system role: its words stand before the user's
        template: "\
{{ bos_token }}
{%- set ns = namespace(before='') %}
{%- for message in messages %}
    {%- if message.role == 'system' %}
        {%- set ns.before = message.content + '\\n\\n' %}
    {%- else %}
        {{- '<start_of_turn>' + ('model' if message.role == 'assistant' else message.role) + '\\n' }}
        {{- ns.before + message.content | trim + '<end_of_turn>\\n' }}
        {%- set ns.before = '' %}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}{{ '<start_of_turn>model\\n' }}{% endif %}",
    },
    Format {
        name: "Llama 3's format",
        tokens: &["<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"],
        template: "\
{{ bos_token }}
{%- for message in messages %}
    {{- '<|start_header_id|>' + message.role + '<|end_header_id|>\\n\\n' + message.content | trim + '<|eot_id|>' }}
{%- endfor %}
{%- if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}{% endif %}",
    },
];

impl ChatTemplates {
    /// The format whose special tokens the vocabulary has, and its name: for models without a template of their own.
    pub fn of_vocabulary(tokenizer: &Tokenizer) -> Option<(Self, &'static str)> {
        let special = tokenizer.special_tokens();
        let format =
            FORMATS.iter().find(|format| format.tokens.iter().all(|token| special.contains(token)))?;
        let bos = tokenizer.bos_id().and_then(|id| tokenizer.token_piece(id));
        let template = ChatTemplate::new(format.template, format.name, bos.as_deref(), None).ok()?;
        Some((Self::new(template), format.name))
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Conversation, Message};
    use super::*;

    #[test]
    fn every_format_is_written_as_its_family_has_it() {
        let conversation = [
            Message::new("system", "Be kind."),
            Message::new("user", "Hi"),
            Message::new("assistant", "Hello!"),
            Message::new("user", "Bye"),
        ];
        let rendered = FORMATS.map(|format| {
            let template = ChatTemplate::new(format.template, format.name, Some("<s>"), None).unwrap();
            template.render(&Conversation::new(&conversation)).unwrap()
        });
        let [chatml, gemma, llama] = rendered;
        assert_eq!(
            chatml,
            "<|im_start|>system\nBe kind.<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n\
             <|im_start|>assistant\nHello!<|im_end|>\n<|im_start|>user\nBye<|im_end|>\n<|im_start|>assistant\n"
        );
        assert_eq!(
            gemma,
            "<s><start_of_turn>user\nBe kind.\n\nHi<end_of_turn>\n<start_of_turn>model\nHello!<end_of_turn>\n\
             <start_of_turn>user\nBye<end_of_turn>\n<start_of_turn>model\n"
        );
        assert!(
            llama.starts_with("<s><|start_header_id|>system<|end_header_id|>\n\nBe kind.<|eot_id|><|start_")
        );
        assert!(llama.ends_with("\n\nBye<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n"));
    }
}
