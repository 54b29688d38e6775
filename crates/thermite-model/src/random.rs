//! Models with random weights, in the shapes of well-known ones.
