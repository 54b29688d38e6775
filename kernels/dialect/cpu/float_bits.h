// float_bits.h - float to and from the bits of half and bfloat, rounding to nearest even, in plain C++.
#pragma once

namespace dialect {
inline unsigned float_bits(float value) {
    unsigned bits;
    __builtin_memcpy(&bits, &value, 4);
    return bits;
}
inline float float_of_bits(unsigned bits) {
    float value;
    __builtin_memcpy(&value, &bits, 4);
    return value;
}

inline unsigned short half_bits(float value) {
    const unsigned bits = float_bits(value), sign = (bits >> 16) & 0x8000, magnitude = bits & 0x7fffffff;
    if (magnitude > 0x7f800000) return sign | 0x7e00;  // NaN
    if (magnitude >= 0x477ff000) return sign | 0x7c00; // rounds past 65504, or infinite
    if (magnitude < 0x38800000) {                      // subnormal: adding 0.5 rounds at the right place
        return sign | (float_bits(float_of_bits(magnitude) + 0.5f) - 0x3f000000);
    }
    const unsigned rebiased = magnitude - (112u << 23);
    return sign | ((rebiased + 0xfff + ((rebiased >> 13) & 1)) >> 13);
}
inline float half_value(unsigned short half) {
    const unsigned exponent = half & 0x7c00, mantissa = half & 0x3ff;
    float magnitude;
    if (exponent == 0) magnitude = mantissa * 5.9604644775390625e-8f; // 2^-24
    else if (exponent == 0x7c00) magnitude = float_of_bits(0x7f800000 | mantissa << 13);
    else magnitude = float_of_bits(((half & 0x7fffu) << 13) + (112u << 23));
    return half & 0x8000 ? -magnitude : magnitude;
}

inline unsigned short bfloat_bits(float value) {
    const unsigned bits = float_bits(value);
    if ((bits & 0x7fffffff) > 0x7f800000) return 0x7fc0; // NaN
    return (bits + 0x7fff + ((bits >> 16) & 1)) >> 16;
}
inline float bfloat_value(unsigned short bfloat) { return float_of_bits((unsigned)bfloat << 16); }
} // namespace dialect
