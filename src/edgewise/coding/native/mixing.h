/* Several estimates of one bit weighed into one (logistic mixing: Mahoney 2005, PAQ; here in base 2 and in integers).
 *
 * An estimate p enters as log2(p / (1 - p)); the weighted sum is turned back into a probability, and each weight moves by its input
 * times the error, which is the gradient of the code length. */
#ifndef EDGEWISE_CODING_MIXING_H
#define EDGEWISE_CODING_MIXING_H

#include "model.h"

#define SLOTS 6         /* estimates that are weighed */
#define WEIGHED 65536   /* a weight of 1 */
#define FIRST_WEIGHT 18000
#define LEARN_FIRST 3000u
#define LEARN_FALL 16
#define LEARN_LEAST 100u

typedef struct {
    uint16_t log[512];  /* 256 log2(1 + i / 512) */
    uint32_t power[256]; /* 2^32 2^(-i / 256), less 1 where it doesn't fit */
} Tables;

typedef struct {
    int32_t weight[SLOTS];
    uint32_t seen;
} Weights;

static inline void fill_tables(Tables *tables)
{
    /* round(2^32 2^(-1 / 2^i)), i = 1 to 8 */
    static const uint32_t root[8] = {3037000500u, 3611622603u, 3938502376u, 4112874773u,
                                     4202935003u, 4248701965u, 4271771996u, 4283353945u};
    for (int i = 0; i < 512; i++) {
        uint64_t y = (UINT64_C(1) << 30) + ((uint64_t)i << 21);
        uint32_t log = 0;
        for (int bit = 0; bit < 8; bit++) { /* squaring doubles the logarithm: its bits appear one by one */
            y = y * y >> 30;
            log = log << 1 | (uint32_t)(y >> 31);
            y >>= y >> 31;
        }
        tables->log[i] = (uint16_t)log;
    }
    for (int i = 0; i < 256; i++) {
        uint64_t power = UINT32_MAX;
        for (int bit = 0; bit < 8; bit++)
            if (i >> (7 - bit) & 1)
                power = power * root[bit] >> 32;
        tables->power[i] = (uint32_t)power;
    }
}

static inline int bit_length(uint32_t value)
{
#if defined(__GNUC__) || defined(__clang__)
    return value ? 32 - __builtin_clz(value) : 0;
#else
    int length = 0;
    for (; value; value >>= 1)
        length++;
    return length;
#endif
}

/* 256 log2(value) of a value in [1, 2^24]. */
static inline int32_t log_of(const Tables *tables, uint32_t value)
{
    const int length = bit_length(value);
    return (length - 1) * 256 + tables->log[((uint64_t)value << (33 - length) >> 23) & 511];
}

/* Rounding down for negative numbers too, as Python does; compilers make one shift of it. */
static inline int64_t down(int64_t value, int shift)
{
    return value >= 0 ? value >> shift : ~(~value >> shift);
}

static inline int32_t stretched(const Tables *tables, uint32_t probability)
{
    const uint32_t p = probability < 64 ? 64 : probability > SURE - 64 ? SURE - 64 : probability;
    return log_of(tables, p) - log_of(tables, SURE - p);
}

/* 65536 / (1 + 2^(-x / 256)), within what the range coder takes. */
static inline uint32_t squashed(const Tables *tables, int64_t x)
{
    const int64_t size = x < 0 ? -x : x;
    uint32_t p = 65536u - LEAST;
    if (size < 16 * 256)
        p = (uint32_t)((UINT64_C(1) << 48) / ((UINT64_C(1) << 32) + (tables->power[size % 256] >> size / 256)));
    p = p > 65536u - LEAST ? 65536u - LEAST : p;
    return x < 0 ? 65536u - p : p;
}

static inline void weights_start(Weights *weights)
{
    for (int i = 0; i < SLOTS; i++)
        weights->weight[i] = FIRST_WEIGHT;
    weights->seen = 0;
}

static inline int mixed_bit(Range *range, const Tables *tables, const Rates *rates, Weights *weights, Bit *const *slots, int count,
                            int bit, const int decoding)
{
    int32_t input[SLOTS];
    int64_t sum = 0;
    for (int i = 0; i < count; i++) {
        input[i] = stretched(tables, (slots[i]->slow + slots[i]->fast) / 2);
        sum += (int64_t)input[i] * weights->weight[i];
    }
    const uint32_t one = squashed(tables, down(sum, 16));
    bit = range_bit(range, one, bit, decoding);
    const int64_t error = (bit ? 65536 : 0) - (int64_t)one;
    const uint32_t falling = LEARN_FIRST / (weights->seen / LEARN_FALL + 1), step = falling > LEARN_LEAST ? falling : LEARN_LEAST;
    for (int i = 0; i < count; i++) {
        const int64_t weight = weights->weight[i] + down(input[i] * error * step, 24);
        weights->weight[i] = (int32_t)(weight < -8 * WEIGHED ? -8 * WEIGHED : weight > 8 * WEIGHED ? 8 * WEIGHED : weight);
        learn(slots[i], rates, bit);
    }
    weights->seen += weights->seen < 65535;
    return bit;
}

#endif
