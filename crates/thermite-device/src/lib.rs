//! The device trait of Thermite and its devices.
