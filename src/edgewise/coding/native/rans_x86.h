/* rANS's thirty-two lanes in vectors of x86, for rans.c alone: four of AVX2, or two of AVX-512. Which, the processor says when it runs;
 * EW_NO_VECTORS leaves them out, for tests. */
#if defined(EW_NO_VECTORS) || !defined(__x86_64__) || !(defined(__GNUC__) || defined(__clang__))

static int has_vectors(void)
{
    return 0;
}

static size_t decode_vectors(const uint8_t **data, const uint8_t *end, const Share *share, const uint8_t *slots, const uint32_t *packed,
                             unsigned bits, uint32_t *state, uint8_t *out, size_t count)
{
    (void)data, (void)end, (void)share, (void)slots, (void)packed, (void)bits, (void)state, (void)out, (void)count;
    return 0;
}

#else

#include <immintrin.h>

#define EW_AVX2 __attribute__((target("avx2,popcnt")))
#define EW_AVX512 __attribute__((target("avx512f,avx512bw,popcnt")))

static int has_vectors(void)
{
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("popcnt");
}

/* Where the refills of eight lanes come from, for each set of lanes that need one: the next words in turn. */
static void fill_orders(uint8_t (*orders)[EW_LANES])
{
    for (unsigned set = 0; set < 256; set++)
        for (unsigned lane = 0, word = 0; lane < EW_LANES; lane++)
            orders[set][lane] = (uint8_t)(set >> lane & 1 ? word++ : 0);
}

/* One symbol of each of eight lanes, as STEP does it; returns them, in 32 bits each. */
EW_AVX2 EW_INLINE __m256i eight_lanes(__m256i *state, const uint8_t **at, const Share *share, const uint8_t *slots, const uint32_t *packed,
                                      uint8_t (*orders)[EW_LANES], const unsigned bits)
{
    const __m256i slot = _mm256_and_si256(*state, _mm256_set1_epi32((1 << bits) - 1)), byte = _mm256_set1_epi32(0xFF);
    __m256i symbol, frequency, offset;
    if (packed) {
        const __m256i entry = _mm256_i32gather_epi32((const int *)(const void *)packed, slot, 4);
        symbol = _mm256_and_si256(entry, byte);
        frequency = _mm256_add_epi32(_mm256_srli_epi32(entry, 20), _mm256_set1_epi32(1));
        offset = _mm256_and_si256(_mm256_srli_epi32(entry, 8), _mm256_set1_epi32(0xFFF));
    } else {
        symbol = _mm256_and_si256(_mm256_i32gather_epi32((const int *)(const void *)slots, slot, 1), byte);
        const __m256i of = _mm256_i32gather_epi32((const int *)(const void *)share, symbol, 4);
        frequency = _mm256_and_si256(of, _mm256_set1_epi32(0xFFFF));
        offset = _mm256_sub_epi32(slot, _mm256_srli_epi32(of, 16));
    }
    const __m256i x = _mm256_add_epi32(_mm256_mullo_epi32(frequency, _mm256_srli_epi32(*state, (int)bits)), offset);
    const __m256i low = _mm256_cmpeq_epi32(_mm256_srli_epi32(x, 16), _mm256_setzero_si256());
    const unsigned set = (unsigned)_mm256_movemask_ps(_mm256_castsi256_ps(low));
    const __m256i order = _mm256_cvtepu8_epi32(_mm_loadl_epi64((const __m128i *)(const void *)orders[set]));
    const __m256i words = _mm256_cvtepu16_epi32(_mm_loadu_si128((const __m128i *)(const void *)*at));
    const __m256i refilled = _mm256_or_si256(_mm256_slli_epi32(x, 16), _mm256_permutevar8x32_epi32(words, order));
    *state = _mm256_blendv_epi8(x, refilled, low);
    *at += 2 * (unsigned)__builtin_popcount(set);
    return symbol;
}

/* `groups` of thirty-two lanes. */
EW_AVX2 EW_INLINE size_t vectors(const uint8_t **data, const uint8_t *end, const Share *share, const uint8_t *slots, const uint32_t *packed,
                                 const unsigned bits, uint32_t *state, uint8_t *out, size_t count)
{
    __m256i *const kept = (__m256i *)(void *)state;
    const __m256i turns = _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7);
    __m256i a = _mm256_loadu_si256(kept), b = _mm256_loadu_si256(kept + 1), c = _mm256_loadu_si256(kept + 2),
            d = _mm256_loadu_si256(kept + 3);
    const uint8_t *at = *data;
    uint8_t orders[256][EW_LANES];
    size_t i = 0;
    fill_orders(orders);
    for (; count - i >= EW_LANES_MAX && end - at >= 2 * EW_LANES_MAX; i += EW_LANES_MAX) {
        const __m256i first = eight_lanes(&a, &at, share, slots, packed, orders, bits);
        const __m256i second = eight_lanes(&b, &at, share, slots, packed, orders, bits);
        const __m256i third = eight_lanes(&c, &at, share, slots, packed, orders, bits);
        const __m256i fourth = eight_lanes(&d, &at, share, slots, packed, orders, bits);
        const __m256i bytes = _mm256_packus_epi16(_mm256_packus_epi32(first, second), _mm256_packus_epi32(third, fourth));
        _mm256_storeu_si256((__m256i *)(void *)(out + i), _mm256_permutevar8x32_epi32(bytes, turns));
    }
    _mm256_storeu_si256(kept, a), _mm256_storeu_si256(kept + 1, b), _mm256_storeu_si256(kept + 2, c), _mm256_storeu_si256(kept + 3, d);
    *data = at;
    return i;
}

/* The same for sixteen lanes; returns the symbols, in 32 bits each with more above them. */
EW_AVX512 EW_INLINE __m512i sixteen_lanes(__m512i *state, const uint8_t **at, const uint32_t *packed, const unsigned bits)
{
    const __m512i slot = _mm512_and_si512(*state, _mm512_set1_epi32((1 << bits) - 1));
    const __m512i entry = _mm512_i32gather_epi32(slot, packed, 4);
    const __m512i frequency = _mm512_add_epi32(_mm512_srli_epi32(entry, 20), _mm512_set1_epi32(1));
    const __m512i offset = _mm512_and_si512(_mm512_srli_epi32(entry, 8), _mm512_set1_epi32(0xFFF));
    const __m512i x = _mm512_add_epi32(_mm512_mullo_epi32(frequency, _mm512_srli_epi32(*state, bits)), offset);
    const __mmask16 low = _mm512_cmplt_epu32_mask(x, _mm512_set1_epi32((int)LOWEST));
    const __m512i words = _mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i *)(const void *)*at));
    *state = _mm512_mask_or_epi32(x, low, _mm512_slli_epi32(x, 16), _mm512_maskz_expand_epi32(low, words));
    *at += 2 * (unsigned)__builtin_popcount(low);
    return entry;
}

EW_AVX512 static size_t wide_vectors(const uint8_t **data, const uint8_t *end, const uint32_t *packed, unsigned bits, uint32_t *state,
                                     uint8_t *out, size_t count)
{
    __m512i a = _mm512_loadu_si512(state), b = _mm512_loadu_si512(state + 16);
    const uint8_t *at = *data;
    size_t i = 0;
    for (; count - i >= EW_LANES_MAX && end - at >= 2 * EW_LANES_MAX; i += EW_LANES_MAX) {
        _mm_storeu_si128((__m128i *)(void *)(out + i), _mm512_cvtepi32_epi8(sixteen_lanes(&a, &at, packed, bits)));
        _mm_storeu_si128((__m128i *)(void *)(out + i + 16), _mm512_cvtepi32_epi8(sixteen_lanes(&b, &at, packed, bits)));
    }
    _mm512_storeu_si512(state, a), _mm512_storeu_si512(state + 16, b);
    *data = at;
    return i;
}

/* Whole groups of thirty-two symbols, as `groups`. packed: NULL where the table can't be packed. */
EW_AVX2 static size_t decode_vectors(const uint8_t **data, const uint8_t *end, const Share *share, const uint8_t *slots,
                                     const uint32_t *packed, unsigned bits, uint32_t *state, uint8_t *out, size_t count)
{
    if (!packed)
        return vectors(data, end, share, slots, NULL, bits, state, out, count);
    if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw"))
        return wide_vectors(data, end, packed, bits, state, out, count);
    return vectors(data, end, NULL, NULL, packed, bits, state, out, count);
}

#endif
