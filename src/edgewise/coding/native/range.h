/* A binary range coder (Martin 1979; the carry runs into the bytes that are written already).
 *
 * `range` holds 33 to 48 bits and is refilled by 16: with probabilities of 16 bits nothing is lost to rounding, and at most one refill
 * follows a bit. Bits and probabilities are the caller's; nothing here adapts. */
#ifndef EDGEWISE_CODING_RANGE_H
#define EDGEWISE_CODING_RANGE_H

#include "core.h"

#define RANGE_WHOLE (UINT64_C(1) << 48)
#define RANGE_LOW (UINT64_C(1) << 32)
#define HEAD_BYTES 6

typedef struct {
    uint64_t range, low; /* low: while decoding, how far the number that is read lies above the range's beginning */
    const uint8_t *data;
    uint8_t *out;
    size_t at, size; /* while encoding, size is the room in `out` */
    int full;
} Range;

/* The next two bytes. Encoders leave trailing zeros out, so behind the end there are zeros. */
EW_INLINE uint64_t range_next(Range *r)
{
    uint64_t next = 0;
    if (r->size >= 2 && r->at <= r->size - 2)
        next = (uint64_t)r->data[r->at] << 8 | r->data[r->at + 1];
    else if (r->at < r->size)
        next = (uint64_t)r->data[r->at] << 8;
    r->at += 2;
    return next;
}

static inline void range_start(Range *r, const uint8_t *data, uint8_t *out, size_t size)
{
    *r = (Range){.range = RANGE_WHOLE, .data = data, .out = out, .size = size};
    if (data)
        for (int i = 0; i < HEAD_BYTES; i += 2)
            r->low = r->low << 16 | range_next(r);
}

static inline void range_carry(Range *r)
{
    for (size_t i = r->at; i-- > 0 && ++r->out[i] == 0;)
        ;
    r->low -= RANGE_WHOLE;
}

static inline void range_put(Range *r)
{
    if (r->low >= RANGE_WHOLE)
        range_carry(r);
    if (r->full || r->size - r->at < 2) {
        r->full = 1;
    } else {
        r->out[r->at++] = (uint8_t)(r->low >> 40);
        r->out[r->at++] = (uint8_t)(r->low >> 32);
    }
    r->low = (r->low & (RANGE_LOW - 1)) << 16;
}

EW_INLINE void range_refill(Range *r, const int decoding)
{
    if (r->range >= RANGE_LOW)
        return;
    r->range <<= 16;
    if (decoding)
        r->low = r->low << 16 | range_next(r);
    else
        range_put(r);
}

/* Code `bit`, or read and return it. one: 65536 times the probability of a 1, from 1 to 65535. */
EW_INLINE int range_bit(Range *r, uint32_t one, int bit, const int decoding)
{
    const uint64_t bound = (r->range >> 16) * one;
    if (decoding) {
        const uint64_t rest = r->range - bound, above = r->low - bound;
        bit = r->low < bound;
        r->range = bit ? bound : rest;
        r->low = bit ? r->low : above;
    } else {
        r->low += bit ? 0 : bound;
        r->range = bit ? bound : r->range - bound;
    }
    range_refill(r, decoding);
    return bit;
}

/* The same for `count` (1 to 16) bits that no model can tell. */
EW_INLINE uint32_t range_raw(Range *r, unsigned count, uint32_t bits, const int decoding)
{
    r->range >>= count;
    if (decoding) {
        const uint64_t found = r->low / r->range, most = (UINT64_C(1) << count) - 1;
        bits = (uint32_t)(found < most ? found : most); /* more is what no encoder wrote */
        r->low -= bits * r->range;
        if (r->low >= r->range)
            r->low = r->range - 1;
    } else {
        r->low += bits * r->range;
    }
    range_refill(r, decoding);
    return bits;
}

/* Write the number in the range that has the fewest bytes. Returns the bytes written in all, or EW_FULL. */
static inline int64_t range_end(Range *r)
{
    int bits = 48;
    uint64_t chosen = 0;
    for (; bits >= 0; bits -= 8) {
        const uint64_t below = (UINT64_C(1) << bits) - 1;
        chosen = (r->low + below) & ~below;
        if (chosen < r->low + r->range)
            break;
    }
    r->low = chosen;
    if (r->low >= RANGE_WHOLE)
        range_carry(r);
    for (int shift = 40; shift >= bits; shift -= 8) {
        if (r->at == r->size)
            r->full = 1;
        else
            r->out[r->at++] = (uint8_t)(r->low >> shift);
    }
    while (r->at && !r->out[r->at - 1])
        r->at--;
    return r->full ? EW_FULL : (int64_t)r->at;
}

/* Whether all that was given was read, and ends as an encoder ends it. */
static inline int64_t range_check(const Range *r)
{
    return r->at < r->size || (r->size && !r->data[r->size - 1]) ? EW_CORRUPT : 0;
}

#endif
