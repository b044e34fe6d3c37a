/* Canonical Huffman codes (Huffman 1952; canonical form as in RFC 1951, 3.2.2) of at most 12 bits, the first bit of a code highest.
 *
 * With 12 bits the whole code is one table of 8 KB, and four symbols are decoded per refill of a 64-bit window. */
#include "core.h"

#include <string.h>

#define LONGEST EW_HUFFMAN_BITS_MAX

typedef struct {
    uint8_t symbol, length;
} Code;

/* The first code of each length. 0, or EW_ARGUMENT where the lengths are no complete code (Kraft's sum is not 1). */
static int first_codes(const uint8_t *lengths, uint32_t *first)
{
    uint32_t of_length[LONGEST + 1] = {0}, kraft = 0, code = 0;
    for (int symbol = 0; symbol < 256; symbol++) {
        if (lengths[symbol] > LONGEST)
            return EW_ARGUMENT;
        of_length[lengths[symbol]] += lengths[symbol] > 0;
    }
    for (int length = 1; length <= LONGEST; length++) {
        code = (code + of_length[length - 1]) << 1;
        first[length] = code;
        kraft += of_length[length] << (LONGEST - length);
    }
    return kraft == UINT32_C(1) << LONGEST ? 0 : EW_ARGUMENT;
}

int64_t ew_huffman_encode(const uint8_t *symbols, size_t count, const uint8_t *lengths, uint8_t *out, size_t room)
{
    uint32_t next[LONGEST + 1], code[256] = {0};
    uint64_t window = 0;
    unsigned filled = 0;
    size_t at = 0;
    if (first_codes(lengths, next) < 0)
        return EW_ARGUMENT;
    for (int symbol = 0; symbol < 256; symbol++)
        if (lengths[symbol])
            code[symbol] = next[lengths[symbol]]++;
    for (size_t i = 0; i < count; i++) {
        const unsigned length = lengths[symbols[i]];
        if (!length)
            return EW_ARGUMENT;
        window = window << length | code[symbols[i]];
        for (filled += length; filled >= 8; filled -= 8) {
            if (at == room)
                return EW_FULL;
            out[at++] = (uint8_t)(window >> (filled - 8));
        }
    }
    if (filled) {
        if (at == room)
            return EW_FULL;
        out[at++] = (uint8_t)(window << (8 - filled));
    }
    return (int64_t)at;
}

static void fill_table(const uint8_t *lengths, uint32_t *next, Code *table)
{
    for (int symbol = 0; symbol < 256; symbol++) {
        const unsigned length = lengths[symbol];
        if (!length)
            continue;
        const uint32_t from = next[length]++ << (LONGEST - length);
        for (uint32_t i = 0; i < UINT32_C(1) << (LONGEST - length); i++)
            table[from + i] = (Code){(uint8_t)symbol, (uint8_t)length};
    }
}

static uint64_t eight_bytes(const uint8_t *at)
{
    uint64_t value = 0;
    for (int i = 0; i < 8; i++)
        value = value << 8 | at[i];
    return value;
}

int64_t ew_huffman_decode(const uint8_t *data, size_t size, const uint8_t *lengths, uint8_t *out, size_t count)
{
    uint32_t next[LONGEST + 1];
    Code table[1 << LONGEST];
    size_t i = 0;
    uint64_t bit = 0;
    if (first_codes(lengths, next) < 0)
        return EW_ARGUMENT;
    fill_table(lengths, next, table);
    for (; count - i >= 4 && size >= 8 && bit / 8 <= size - 8; i += 4) {
        const uint64_t window = eight_bytes(data + (size_t)(bit / 8)) << bit % 8;
        unsigned used = 0;
        for (int k = 0; k < 4; k++) { /* 4 * 12 bits and the 7 before them fit in 64 */
            const Code code = table[window << used >> (64 - LONGEST)];
            out[i + (size_t)k] = code.symbol;
            used += code.length;
        }
        bit += used;
    }
    for (; i < count; i++) {
        uint32_t window = 0;
        for (uint64_t byte = bit / 8; byte < bit / 8 + 3; byte++)
            window = window << 8 | (byte < size ? data[byte] : 0);
        const Code code = table[window >> (24 - bit % 8 - LONGEST) & ((1 << LONGEST) - 1)];
        out[i] = code.symbol;
        bit += code.length;
        if ((bit + 7) / 8 > size)
            return EW_TRUNCATED;
    }
    if ((bit + 7) / 8 != size)
        return EW_CORRUPT;
    return bit % 8 && (uint8_t)(data[size - 1] << bit % 8) ? EW_CORRUPT : 0;
}
