/* The hot loops of edgewise.coding, without Python: C11, integer arithmetic alone, so that every machine gives the same bytes.
 *
 * Each function says what it writes, or one of the codes below. None reads or writes outside of the buffers that it is given, whatever they
 * hold; none allocates more than a few bytes per column. edgewise.coding.fallback is the same in Python, byte for byte. */
#ifndef EDGEWISE_CODING_CORE_H
#define EDGEWISE_CODING_CORE_H

#include <stddef.h>
#include <stdint.h>

enum { EW_TRUNCATED = -1, EW_CORRUPT = -2, EW_FULL = -3, EW_ARGUMENT = -4, EW_MEMORY = -5 };

#define EW_LANES 8
#define EW_LANES_MAX 32
#define EW_RANS_BITS_MIN 8
#define EW_RANS_BITS_MAX 14
#define EW_HUFFMAN_BITS_MAX 12

#if defined(__GNUC__) || defined(__clang__)
#define EW_INLINE static inline __attribute__((always_inline))
#else
#define EW_INLINE static inline
#endif

/* rANS over bytes. frequencies: 256, which sum to 1 << bits; lanes: EW_LANES or EW_LANES_MAX. Encoding returns the bytes written, decoding 0. */
int64_t ew_rans_encode(const uint8_t *symbols, size_t count, const uint32_t *frequencies, unsigned bits, unsigned lanes, uint8_t *out,
                       size_t room);
int64_t ew_rans_decode(const uint8_t *data, size_t size, const uint32_t *frequencies, unsigned bits, unsigned lanes, uint8_t *out,
                       size_t count);

/* Canonical Huffman over bytes. lengths: 256, of 0 to EW_HUFFMAN_BITS_MAX bits, a complete code. */
int64_t ew_huffman_encode(const uint8_t *symbols, size_t count, const uint8_t *lengths, uint8_t *out, size_t room);
int64_t ew_huffman_decode(const uint8_t *data, size_t size, const uint8_t *lengths, uint8_t *out, size_t count);

/* The adaptive coder: a matrix of integers in [-(2^31 - 1), 2^31 - 1], row by row. `mixing` weighs several contexts per bit. */
int64_t ew_adaptive_encode(const int32_t *values, size_t rows, size_t columns, int mixing, uint8_t *out, size_t room);
int64_t ew_adaptive_decode(const uint8_t *data, size_t size, size_t rows, size_t columns, int mixing, int32_t *values);

#endif
