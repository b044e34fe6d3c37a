/* What the adaptive coder expects of the next bit. */
#ifndef EDGEWISE_CODING_MODEL_H
#define EDGEWISE_CODING_MODEL_H

#include "range.h"

#define SURE (UINT32_C(1) << 24)
#define RATES 1024
#define SLOWEST_SHARE 800
#define FASTEST_SHARE 80
#define LEAST 3u /* of 65536: a bit that was always the same costs 0.00007 bits */

/* Two estimates of one probability, in units of 2^-24. The first bits move both quickly, 1/(n + 1.5) as in Krichevsky and Trofimov's
 * estimator; later, one follows what changes and the other holds what stays. */
typedef struct {
    uint32_t slow, fast, seen;
} Bit;

typedef struct {
    uint32_t slow[RATES], fast[RATES], activity[RATES];
} Rates;

/* 65536 / (n + 1.5), and never under 65536 / limit. */
static inline uint32_t rate(uint32_t seen, uint32_t limit)
{
    const uint32_t falling = 131072u / (2 * seen + 3), least = 65536u / limit;
    return falling > least ? falling : least;
}

EW_INLINE uint32_t moved(uint32_t from, uint32_t target, uint32_t share)
{
    return target > from ? from + (uint32_t)((uint64_t)(target - from) * share >> 16)
                         : from - (uint32_t)((uint64_t)(from - target) * share >> 16);
}

EW_INLINE uint32_t chance(const Bit *model)
{
    const uint32_t one = (model->slow + model->fast) >> 9;
    return one < LEAST ? LEAST : one > 65536u - LEAST ? 65536u - LEAST : one;
}

EW_INLINE void learn(Bit *model, const Rates *rates, int bit)
{
    const uint32_t flip = bit ? SURE : 0, seen = model->seen;
    /* Towards SURE is away from it, mirrored: one branch-free form for both. */
    uint32_t slow = bit ? flip - model->slow : model->slow, fast = bit ? flip - model->fast : model->fast;
    slow -= (uint32_t)((uint64_t)slow * rates->slow[seen] >> 16);
    fast -= (uint32_t)((uint64_t)fast * rates->fast[seen] >> 16);
    model->slow = bit ? SURE - slow : slow;
    model->fast = bit ? SURE - fast : fast;
    model->seen = seen + (seen < RATES - 1);
}

#endif
