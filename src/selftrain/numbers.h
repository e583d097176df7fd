// What our C sources share; native.py puts it in front of each: bf16 and fp32 as numbers, exp and silu.

#include <math.h>
#include <stdint.h>
#include <string.h>

static inline float load_bf16(uint16_t value) {
    uint32_t bits = (uint32_t)value << 16;
    float out;
    memcpy(&out, &bits, 4);
    return out;
}

static inline uint16_t store_bf16(float value) {  // to the nearest, ties to even
    uint32_t bits;
    memcpy(&bits, &value, 4);
    return (uint16_t)((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16);
}

static inline float load_fp32(float value) { return value; }
static inline float store_fp32(float value) { return value; }

// e^x for x <= 0, to about 2e-7 relative: 2^n times a polynomial in the rest, written so that compilers vectorise it.
static inline float exp_below_zero(float x) {
    x = x < -87.0f ? -87.0f : x;
    int32_t whole = (int32_t)(x * 1.44269504f - 0.5f);
    float rest = x - (float)whole * 0.693359375f + (float)whole * 2.12194440e-4f;
    float value = 1.9875691500e-4f;
    value = value * rest + 1.3981999507e-3f;
    value = value * rest + 8.3334519073e-3f;
    value = value * rest + 4.1665795894e-2f;
    value = value * rest + 1.6666665459e-1f;
    value = value * rest + 5.0000001201e-1f;
    value = value * rest * rest + rest + 1.0f;
    uint32_t bits = (uint32_t)(whole + 127) << 23;
    float power;
    memcpy(&power, &bits, 4);
    return value * power;
}

static inline float silu(float x) {
    float power = exp_below_zero(x < 0.0f ? x : -x);
    return x * (x < 0.0f ? power : 1.0f) / (1.0f + power);
}
