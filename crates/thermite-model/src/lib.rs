//! The forward passes of Thermite.
