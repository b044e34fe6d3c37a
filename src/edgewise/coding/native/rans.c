/* rANS (Duda, arXiv:1311.2540) with eight or thirty-two interleaved 32-bit states that are refilled by 16 bits.
 *
 * Eight, because one state is a chain of a load, a multiplication and an addition: eight such chains keep a core busy. Thirty-two, for long
 * data, are two or four vectors (rans_x86.h), whose gathers are such chains again; elsewhere they are four times eight. 16 bits at a time, so that a
 * state is refilled at most once per symbol and the loop has no inner loop. Tables stay in the L1
 * cache: up to 12 bits an entry of four bytes says all about a slot, above it is a byte, the symbol. */
#include "core.h"

#include <string.h>

#define LOWEST (UINT32_C(1) << 16)

typedef struct {
    uint16_t frequency, start;
} Share;

#include "rans_x86.h"

/* 0, or EW_ARGUMENT where the frequencies don't sum to 1 << bits. */
static int shares(const uint32_t *frequencies, unsigned bits, Share *share)
{
    uint64_t sum = 0;
    if (bits < EW_RANS_BITS_MIN || bits > EW_RANS_BITS_MAX)
        return EW_ARGUMENT;
    for (int symbol = 0; symbol < 256; symbol++) {
        if (frequencies[symbol] > (UINT32_C(1) << bits) - (uint32_t)sum)
            return EW_ARGUMENT;
        share[symbol].frequency = (uint16_t)frequencies[symbol];
        share[symbol].start = (uint16_t)sum;
        sum += frequencies[symbol];
    }
    return sum == UINT64_C(1) << bits ? 0 : EW_ARGUMENT;
}

int64_t ew_rans_encode(const uint8_t *symbols, size_t count, const uint32_t *frequencies, unsigned bits, unsigned lanes, uint8_t *out,
                       size_t room)
{
    Share share[256];
    uint32_t state[EW_LANES_MAX];
    size_t at = room;
    if ((lanes != EW_LANES && lanes != EW_LANES_MAX) || shares(frequencies, bits, share) < 0)
        return EW_ARGUMENT;
    for (unsigned lane = 0; lane < lanes; lane++)
        state[lane] = LOWEST;
    for (size_t i = count; i-- > 0;) {
        const Share of = share[symbols[i]];
        uint32_t x = state[i % lanes];
        if (!of.frequency)
            return EW_ARGUMENT;
        if ((uint64_t)x >= (uint64_t)of.frequency << (32 - bits)) {
            if (at < 2)
                return EW_FULL;
            out[--at] = (uint8_t)(x >> 8);
            out[--at] = (uint8_t)x;
            x >>= 16;
        }
        state[i % lanes] = ((x / of.frequency) << bits) + x % of.frequency + of.start;
    }
    if (at < 4 * (size_t)lanes)
        return EW_FULL;
    for (unsigned lane = lanes; lane-- > 0;)
        for (int shift = 24; shift >= 0; shift -= 8)
            out[--at] = (uint8_t)(state[lane] >> shift);
    memmove(out, out + at, room - at);
    return (int64_t)(room - at);
}

/* What a slot stands for in 32 bits: frequency less one (12), offset of the slot within its symbol (12), symbol (8). One load, where symbol
 * and share in tables of their own are two that wait for each other. At 12 bits, which most tensors have, 16 KB, and a quarter faster; the
 * vectors, which gather twice otherwise, are faster by it even at 14 bits, where it has left the L1 cache. */
#define PACKED_BITS_MAX 12
#define PACKED_FREQUENCY_MAX (1 << 12)

static void pack_slots(const Share *share, const uint8_t *slots, unsigned bits, uint32_t *packed)
{
    for (uint32_t slot = 0; slot < UINT32_C(1) << bits; slot++) {
        const Share of = share[slots[slot]];
        packed[slot] = (uint32_t)(of.frequency - 1) << 20 | (slot - of.start) << 8 | slots[slot];
    }
}

static int packable(const Share *share)
{
    for (int symbol = 0; symbol < 256; symbol++)
        if (share[symbol].frequency > PACKED_FREQUENCY_MAX)
            return 0;
    return 1;
}

/* One symbol of one lane. 16 bits are always there to be read, and a mask says whether they count: a branch, which would be missed often,
 * halves the speed at 4 bits a symbol. */
#define STEP(lane)                                                                                     \
    do {                                                                                               \
        const uint32_t slot = x##lane & mask;                                                          \
        if (packed) {                                                                                  \
            const uint32_t entry = packed[slot];                                                       \
            out[i + lane] = (uint8_t)entry;                                                            \
            x##lane = ((entry >> 20) + 1) * (x##lane >> bits) + (entry >> 8 & 0xFFF);                  \
        } else {                                                                                       \
            const uint8_t symbol = slots[slot];                                                        \
            const Share of = share[symbol];                                                            \
            out[i + lane] = symbol;                                                                    \
            x##lane = of.frequency * (x##lane >> bits) + slot - of.start;                              \
        }                                                                                              \
        const uint32_t low = 0 - (uint32_t)(x##lane < LOWEST), next = at[0] | (uint32_t)at[1] << 8;    \
        x##lane = x##lane << (16 & low) | (next & low);                                                \
        at += 2 & low;                                                                                 \
    } while (0)

#define EIGHT    \
    do {         \
        STEP(0); \
        STEP(1); \
        STEP(2); \
        STEP(3); \
        STEP(4); \
        STEP(5); \
        STEP(6); \
        STEP(7); \
    } while (0)

/* Whole groups of one symbol a lane, as long as that many refills are there. Returns the symbols done. Inline, so that `bits`, `lanes` and
 * which table it is are constants of the loop: of the registers that it takes, eight hold states. */
EW_INLINE size_t groups(const uint8_t **data, const uint8_t *end, const Share *share, const uint8_t *slots, const uint32_t *packed,
                        const unsigned bits, const unsigned lanes, uint32_t *state, uint8_t *out, size_t count)
{
    const uint32_t mask = (UINT32_C(1) << bits) - 1;
    const uint8_t *at = *data;
    uint32_t x0 = state[0], x1 = state[1], x2 = state[2], x3 = state[3], x4 = state[4], x5 = state[5], x6 = state[6], x7 = state[7];
    size_t i = 0;
    for (; count - i >= lanes && (size_t)(end - at) >= 2 * (size_t)lanes; i += EW_LANES) {
        if (lanes == EW_LANES) {
            EIGHT;
            continue;
        }
        uint32_t *own = state;
        for (unsigned eight = 0;; eight += EW_LANES, own += EW_LANES, i += EW_LANES) {
            x0 = own[0], x1 = own[1], x2 = own[2], x3 = own[3], x4 = own[4], x5 = own[5], x6 = own[6], x7 = own[7];
            EIGHT;
            own[0] = x0, own[1] = x1, own[2] = x2, own[3] = x3, own[4] = x4, own[5] = x5, own[6] = x6, own[7] = x7;
            if (eight + EW_LANES == lanes)
                break;
        }
    }
    if (lanes == EW_LANES)
        state[0] = x0, state[1] = x1, state[2] = x2, state[3] = x3, state[4] = x4, state[5] = x5, state[6] = x6, state[7] = x7;
    *data = at;
    return i;
}

/* By the form that is fastest for these lanes on this machine. */
static size_t decode_groups(const uint8_t **data, const uint8_t *end, const Share *share, const uint8_t *slots, unsigned bits,
                            unsigned lanes, uint32_t *state, uint8_t *out, size_t count)
{
    uint32_t packed[1 << EW_RANS_BITS_MAX];
    const int vectorised = lanes == EW_LANES_MAX && has_vectors();
    /* (The table is worth making for a few times as many symbols.) */
    const int pack = (bits <= PACKED_BITS_MAX || vectorised) && count >> bits && packable(share);
    if (pack)
        pack_slots(share, slots, bits, packed);
    if (vectorised)
        return decode_vectors(data, end, share, slots, pack ? packed : NULL, bits, state, out, count);
    if (lanes == EW_LANES_MAX)
        return pack ? groups(data, end, NULL, NULL, packed, bits, EW_LANES_MAX, state, out, count)
                    : groups(data, end, share, slots, NULL, bits, EW_LANES_MAX, state, out, count);
    if (pack)
        return bits == 12 ? groups(data, end, NULL, NULL, packed, 12, EW_LANES, state, out, count)
                          : groups(data, end, NULL, NULL, packed, bits, EW_LANES, state, out, count);
    if (bits == 13)
        return groups(data, end, share, slots, NULL, 13, EW_LANES, state, out, count);
    if (bits == 14)
        return groups(data, end, share, slots, NULL, 14, EW_LANES, state, out, count);
    return groups(data, end, share, slots, NULL, bits, EW_LANES, state, out, count);
}

int64_t ew_rans_decode(const uint8_t *data, size_t size, const uint32_t *frequencies, unsigned bits, unsigned lanes, uint8_t *out,
                       size_t count)
{
    Share share[256];
    uint8_t slots[(1 << EW_RANS_BITS_MAX) + 3]; /* (A gather of bytes reads four.) */
    uint32_t state[EW_LANES_MAX];
    const uint8_t *at = data, *const end = data + size;
    if ((lanes != EW_LANES && lanes != EW_LANES_MAX) || shares(frequencies, bits, share) < 0)
        return EW_ARGUMENT;
    if (size < 4 * (size_t)lanes)
        return EW_TRUNCATED;
    for (int symbol = 0; symbol < 256; symbol++)
        memset(slots + share[symbol].start, symbol, frequencies[symbol]);
    memset(slots + (1 << bits), 0, 3);
    for (unsigned lane = 0; lane < lanes; lane++, at += 4) {
        state[lane] = at[0] | (uint32_t)at[1] << 8 | (uint32_t)at[2] << 16 | (uint32_t)at[3] << 24;
        if (state[lane] < LOWEST)
            return EW_CORRUPT;
    }
    for (size_t i = decode_groups(&at, end, share, slots, bits, lanes, state, out, count); i < count; i++) {
        uint32_t x = state[i % lanes];
        const uint32_t slot = x & ((UINT32_C(1) << bits) - 1);
        const Share of = share[slots[slot]];
        out[i] = slots[slot];
        x = of.frequency * (x >> bits) + slot - of.start;
        if (x < LOWEST) {
            if (end - at < 2)
                return EW_TRUNCATED;
            x = x << 16 | at[0] | (uint32_t)at[1] << 8;
            at += 2;
        }
        state[i % lanes] = x;
    }
    for (unsigned lane = 0; lane < lanes; lane++)
        if (state[lane] != LOWEST)
            return EW_CORRUPT;
    return at == end ? 0 : EW_CORRUPT;
}
