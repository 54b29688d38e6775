//! The Metal compute kernels of Thermite, and what parses, launches and checks them.
