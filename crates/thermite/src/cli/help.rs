//! What stands below the options in help texts: a word on terms, and examples.

pub(super) const THERMITE: &str = "\
Models read and write tokens: words, or pieces of words. A small model is built
in; with -m any command takes another.

Examples:
  thermite generate \"Once upon a time\"
  thermite chat -m ~/models/gpt2 -n 60
  thermite inspect ~/models/gpt2
  thermite help generate";

pub(super) const GENERATE: &str = "\
The text goes to standard output as it comes, one line of figures to standard
error: the speed at which the prompt was read and the text written, in tokens
a second, and the time to the first token.

Examples:
  thermite generate \"Once upon a time\"
  thermite generate \"The dog was very\" --temperature 0 -n 40
  thermite generate -f prompt.txt --seed 7 --top-k 20 --stop \"The end\"
  thermite generate \"What is Rust?\" --chat -m ~/models/smollm2.gguf
  echo \"Tom and Mia\" | thermite generate --json";

pub(super) const CHAT: &str = "\
What you type is a message, and the model answers; its chat template says how
messages are written, and nothing that is typed can pass for a special token.
Models that were not made for conversations have no template: what you type is
then added to the text so far, and the model goes on from there; an empty line
lets it go on by itself. Ctrl-C stops an answer, Ctrl-D ends.

  /clear    begin anew        /seed N   the same answers each time
  /help     this list         /quit     end

Without a terminal, each line of standard input is a turn.

Examples:
  thermite chat
  thermite chat -m ~/models/smollm2.gguf --system \"Answer in one sentence.\"
  printf 'Once upon a time\\nThen a dog came.\\n' | thermite chat -n 40";

pub(super) const EVAL: &str = "\
The text is cut into windows, and the model predicts each token of a window
from those before it. Printed are the mean negative log-likelihood of a token
(nll) and the perplexity e^nll: among how many equally likely tokens the model
was in doubt. Lower is better.

Examples:
  thermite eval models/stories-3m/validation.txt
  thermite eval book.txt --model ~/models/gpt2 --window 1024 --json";

pub(super) const TOKENIZE: &str = "\
Each token is shown with its id, its text, and its spelling in the model's
vocabulary. The newline at the end of a file is not counted.

Examples:
  thermite tokenize \"Once upon a time\"
  thermite tokenize -f prompt.txt --json
  echo \"Tom and Mia\" | thermite tokenize -m ~/models/gpt2";

pub(super) const PULL: &str = "\
What a model is made of is fetched: config, tokenizer and safetensors weights,
or the one GGUF file. It comes to where the Hub's own tools keep it: $HF_HOME,
or ~/.cache/huggingface. What is there is not fetched again, and what was cut
short goes on where it ended. Every command takes hf:REPO as a model then.

HF_ENDPOINT names another Hub. HF_TOKEN, or the token that the Hub's own tools
have saved, opens models behind a licence.

Examples:
  thermite pull HuggingFaceTB/SmolLM2-135M-Instruct
  thermite chat -m hf:HuggingFaceTB/SmolLM2-135M-Instruct
  thermite pull bartowski/SmolLM2-135M-Instruct-GGUF \\
    --file SmolLM2-135M-Instruct-Q8_0.gguf";

pub(super) const INSPECT: &str = "\
Examples:
  thermite inspect
  thermite inspect ~/models/gpt2 --context 256 --kv-type f16
  thermite inspect ~/models/gpt2 --json";

pub(super) const QUANTIZE: &str = "\
A type is one of q4_0, q4_1, q5_0, q5_1 and q8_0 (a scale for 32 weights), q2_k
to q6_k (scales of scales, for 256), f16, bf16 and f32; the digit is the number
of bits. Norms, biases and tables of positions stay f32. Rows that are not whole
blocks of a type get the nearest one of smaller blocks.

Examples:
  thermite quantize ~/models/llama llama.q4_k.gguf --type q4_k
  thermite quantize model.gguf small.gguf --type q4_0 --embedding-type q8_0
  thermite quantize stories-3m stories.gguf --type f16";

pub(super) const FLOW: &str = "\
Each line is one kernel (a program that runs on the device), with what it reads
and what it writes; shapes in brackets, f32 where no type is named.

Examples:
  thermite flow
  thermite flow ~/models/gpt2 --tokens 128";

pub(super) const BENCH: &str = "\
Prefill is reading a prompt, decode is writing token by token. Each figure is
the median of several runs, with the slowest and the fastest.

With --serve, requests go to a server as its users send them, and each gets a
text of --tokens tokens back: the time to the first token, the time from one to
the next, and the tokens that all get in a second. A percentile is the smallest
measured value that so many percent of all do not exceed (nearest rank).

Examples:
  thermite bench
  thermite bench --shape gpt2-124m --prompt 512 --tokens 64
  thermite bench --format json --svg speed.svg
  thermite bench --serve --concurrency 1,8,64 --svg load.svg
  thermite bench --serve --url http://127.0.0.1:8080 --rate 2,5 --duration 60";

pub(super) const COMPLETIONS: &str = "\
Examples:
  source <(thermite completions bash)
  thermite completions zsh > ~/.zfunc/_thermite
  thermite completions fish > ~/.config/fish/completions/thermite.fish";

pub(super) const KERNELS: &str = "\
Without a command, the kernels are listed.

Examples:
  thermite kernels
  thermite kernels show layernorm_forward --dims N=4,C=768
  thermite kernels check --device emulated";

pub(super) const KERNELS_SHOW: &str = "\
Dimensions are those in the shapes of the buffers.

Examples:
  thermite kernels show argmax_sample
  thermite kernels show layernorm_forward_v4 --dims N=4,C=768 --no-source";

pub(super) const KERNELS_BENCH: &str = "\
Random data; a launch's buffers are not in the cache, but in the column that
says so. Bytes and operations are the fewest that the formula needs.

Examples:
  thermite kernels bench --device cuda --svg roofline.svg
  thermite kernels bench --device metal matvec softmax";

pub(super) const KERNELS_CHECK: &str = "\
Every kernel runs on odd sizes, huge and tiny numbers, infinities and NaN, with
guards around its buffers. The emulated device compiles the kernels with the
C++ compiler that CXX names, or c++.

Examples:
  thermite kernels check
  thermite kernels check --device cpu softmax layernorm";

pub(super) const SERVE: &str = "\
The server speaks OpenAI's API: point a client at http://127.0.0.1:8080/v1, or
a browser at http://127.0.0.1:8080. Requests run together, in one batch. A model
is served under the name that stands before `=`, or else that of its file.

Keys, one a line, come from --api-key-file, or from THERMITE_API_KEYS, where
spaces or commas part them. Ctrl-C and SIGTERM let running requests finish; a
second one cuts them off.

Examples:
  thermite serve
  thermite serve ~/models/smollm2.gguf --port 9000 --context 4096
  thermite serve chat=~/models/smollm2.gguf stories-3m
  thermite serve --host 0.0.0.0 --api-key-file keys.txt
  curl localhost:8080/v1/completions -H 'Content-Type: application/json' \\
    -d '{\"prompt\": \"Once upon a time\", \"max_tokens\": 40}'";
