//! A GPT-2 of 3.55 M parameters that writes short stories, embedded in the program.
