/* The adaptive coder: a matrix of integers, most of them small, bit by bit, each bit expected from what was coded before.
 *
 * An integer is a flag (is it zero?), a sign, the bit length of its magnitude in unary, the three bits below the highest one, and the rest
 * as it is. What tells most is how large integers are in this column, in this row and next to this place: each is kept as a moving average
 * of bit lengths, the *activity*. Dead rows and columns have activity 0, and cost next to nothing. One walk serves both directions, so that
 * they can't differ. */
#include "mixing.h"

#include <stdlib.h>
#include <string.h>

#define UNIT 65536 /* activity of a bit length of 1 */
#define FIRST_ACTIVITY 24576
#define ACTIVITY_SHARE 64
#define LEVELS 32
#define LEVEL_STEPS 7937 /* 31 lengths of 256 steps */
#define FLAG_LEVELS 8
#define LENGTHS 32   /* magnitudes under 2^31 */
/* Sets of weights: by neighbours for the flag, one for the sign, by length and by place for the rest. */
enum { FLAG_WEIGHTS = 0, SIGN_WEIGHTS = 5, LENGTH_WEIGHTS = 6, TAIL_WEIGHTS = LENGTH_WEIGHTS + LENGTHS, WEIGHT_SETS = TAIL_WEIGHTS + 8 };
#define SIGN_SEEN 12 /* a sign is even until more than a few have shown otherwise */

/* The activities, in 256ths of a bit length, where a level ends. */
static const uint16_t level_ends[LEVELS - 1] = {1,   2,   4,   7,   11,  16,  24,   36,   54,   80,   115,  160,  215,  280,  350, 430,
                                                520, 620, 730, 840, 950, 1060, 1170, 1280, 1390, 1500, 1610, 1720, 1830, 2000, 2300};

typedef struct {
    uint32_t activity;
    uint8_t length; /* of the magnitude above */
    int8_t sign;
} Column;

/* What is known before an integer is coded. */
typedef struct {
    uint32_t row, column, level;            /* levels of activities: of this row, this column, and of all that is around */
    uint32_t left, above, before, corner;   /* bit lengths: to the left, above, two to the left, above to the left */
    int left_sign, above_sign;
} Around;

typedef struct {
    Bit flag[FLAG_LEVELS][FLAG_LEVELS][3], sign[3][3], length[LEVELS][LENGTHS], tail[4][LENGTHS][8];
} Models;

/* Further views of the same bits, for mixing. */
typedef struct {
    Bit flag_row[LEVELS][5], flag_column[LEVELS][5], flag_pattern[81], flag_level[LEVELS], flag_fine[LEVELS][LEVELS];
    Bit sign, length_sides[LEVELS / 2][LEVELS / 2][LENGTHS], length_next[6][6][LENGTHS], length[LENGTHS], tail[LENGTHS][8];
} Views;

typedef struct {
    Range range;
    Rates rates;
    uint8_t level_of[LEVEL_STEPS];
    Models models;
    /* From here on for mixing alone. */
    Tables tables;
    Views views;
    Weights weights[WEIGHT_SETS];
} Coder;

EW_INLINE uint32_t least(uint32_t a, uint32_t b)
{
    return a < b ? a : b;
}

EW_INLINE int plain_bit(Coder *c, Bit *model, int bit, const int decoding)
{
    bit = range_bit(&c->range, chance(model), bit, decoding);
    learn(model, &c->rates, bit);
    return bit;
}

EW_INLINE int code_flag(Coder *c, const Around *a, int bit, const int mixing, const int decoding)
{
    const uint32_t near = (uint32_t)(a->left > 0) + (a->above > 0), wider = near + (a->before > 0) + (a->corner > 0);
    Bit *const joint = &c->models.flag[least(a->row / 2, FLAG_LEVELS - 1)][least(a->column / 2, FLAG_LEVELS - 1)][near];
    if (!mixing)
        return plain_bit(c, joint, bit, decoding);
    const uint32_t pattern = least(a->left, 2) * 27 + least(a->above, 2) * 9 + least(a->before, 2) * 3 + least(a->corner, 2);
    Bit *const slots[] = {joint, &c->views.flag_row[a->row][wider], &c->views.flag_column[a->column][wider],
                          &c->views.flag_pattern[pattern], &c->views.flag_level[a->level],
                          &c->views.flag_fine[a->row][a->column]};
    return mixed_bit(&c->range, &c->tables, &c->rates, &c->weights[FLAG_WEIGHTS + wider], slots, 6, bit, decoding);
}

EW_INLINE int code_sign(Coder *c, const Around *a, int bit, const int mixing, const int decoding)
{
    Bit *const slots[] = {&c->models.sign[a->left_sign + 1][a->above_sign + 1], &c->views.sign};
    if (!mixing)
        return plain_bit(c, slots[0], bit, decoding);
    return mixed_bit(&c->range, &c->tables, &c->rates, &c->weights[SIGN_WEIGHTS], slots, 2, bit, decoding);
}

/* Whether the magnitude has more than `length` bits. */
EW_INLINE int code_longer(Coder *c, const Around *a, uint32_t length, int bit, const int mixing, const int decoding)
{
    Bit *const slots[] = {&c->models.length[a->level][length], &c->views.length_sides[a->row / 2][a->column / 2][length],
                          &c->views.length_next[least(a->left, 5)][least(a->above, 5)][length], &c->views.length[length]};
    if (!mixing)
        return plain_bit(c, slots[0], bit, decoding);
    return mixed_bit(&c->range, &c->tables, &c->rates, &c->weights[LENGTH_WEIGHTS + length], slots, 4, bit, decoding);
}

/* One of the three bits below the highest; node: 1 and the bits of them that came before. */
EW_INLINE int code_tail(Coder *c, const Around *a, uint32_t length, uint32_t node, int bit, const int mixing, const int decoding)
{
    Bit *const slots[] = {&c->models.tail[a->level / 8][length][node], &c->views.tail[length][node]};
    if (!mixing)
        return plain_bit(c, slots[0], bit, decoding);
    return mixed_bit(&c->range, &c->tables, &c->rates, &c->weights[TAIL_WEIGHTS + node], slots, 2, bit, decoding);
}

EW_INLINE uint32_t code_magnitude(Coder *c, const Around *a, uint32_t magnitude, uint32_t *bits, const int mixing, const int decoding)
{
    uint32_t length = 1, node = 1;
    const uint32_t given = decoding ? 0 : (uint32_t)bit_length(magnitude);
    while (length < LENGTHS - 1 && code_longer(c, a, length, length < given, mixing, decoding))
        length++;
    uint32_t left = length - 1;
    *bits = length;
    for (; left > 0 && node < 8; left--)
        node = node << 1 | (uint32_t)code_tail(c, a, length, node, magnitude >> (left - 1) & 1, mixing, decoding);
    while (left > 0) {
        const unsigned some = left < 16 ? left : 16;
        left -= some;
        node = node << some | range_raw(&c->range, some, magnitude >> left & ((1u << some) - 1), decoding);
    }
    return node;
}

EW_INLINE int32_t code_integer(Coder *c, const Around *a, int32_t value, uint32_t *length, const int mixing, const int decoding)
{
    *length = 0;
    if (!code_flag(c, a, value != 0, mixing, decoding))
        return 0;
    const int negative = code_sign(c, a, value < 0, mixing, decoding);
    const uint32_t magnitude = code_magnitude(c, a, value < 0 ? 0u - (uint32_t)value : (uint32_t)value, length, mixing, decoding);
    return negative ? -(int32_t)magnitude : (int32_t)magnitude;
}

EW_INLINE void walk(Coder *c, int32_t *values, size_t rows, size_t columns, Column *column, const int mixing, const int decoding)
{
    for (size_t row = 0; row < rows; row++) {
        const uint32_t share = c->rates.activity[row < RATES ? row : RATES - 1];
        uint32_t activity = FIRST_ACTIVITY;
        Around a = {0};
        for (size_t j = 0; j < columns; j++, values++) {
            uint32_t length;
            Column *const here = &column[j];
            const uint32_t all = (3 * (here->activity + activity) + (a.left + here->length) * UNIT) / 8;
            a.above = here->length;
            a.above_sign = here->sign;
            a.row = c->level_of[activity >> 8];
            a.column = c->level_of[here->activity >> 8];
            a.level = c->level_of[all >> 8];
            const int32_t value = code_integer(c, &a, decoding ? 0 : *values, &length, mixing, decoding);
            if (decoding)
                *values = value;
            a.before = a.left;
            a.corner = a.above;
            a.left = length;
            a.left_sign = (value > 0) - (value < 0);
            here->length = (uint8_t)length;
            here->sign = (int8_t)a.left_sign;
            here->activity = moved(here->activity, length * UNIT, share);
            activity = moved(activity, length * UNIT, c->rates.activity[j < RATES ? j : RATES - 1]);
        }
    }
}

static void even(Bit *models, size_t bytes, uint32_t seen)
{
    for (size_t i = 0; i < bytes / sizeof(Bit); i++)
        models[i] = (Bit){SURE / 2, SURE / 2, seen};
}

static void start(Coder *c, int mixing)
{
    for (uint32_t i = 0; i < RATES; i++) {
        c->rates.slow[i] = rate(i, SLOWEST_SHARE);
        c->rates.fast[i] = rate(i, FASTEST_SHARE);
        c->rates.activity[i] = rate(i, ACTIVITY_SHARE);
    }
    for (uint32_t level = 0, step = 0; step < LEVEL_STEPS; step++) {
        level += level < LEVELS - 1 && step >= level_ends[level];
        c->level_of[step] = (uint8_t)level;
    }
    even((Bit *)&c->models, sizeof(Models), 0);
    even(&c->models.sign[0][0], sizeof c->models.sign, SIGN_SEEN);
    if (!mixing)
        return;
    fill_tables(&c->tables);
    even((Bit *)&c->views, sizeof(Views), 0);
    even(&c->views.sign, sizeof c->views.sign, SIGN_SEEN);
    for (int set = 0; set < WEIGHT_SETS; set++)
        weights_start(&c->weights[set]);
}

static Coder *made(size_t columns, int mixing, Column **column)
{
    Coder *c = malloc(sizeof(Coder));
    *column = columns <= SIZE_MAX / sizeof(Column) ? malloc(columns * sizeof(Column) + 1) : NULL;
    if (!c || !*column) {
        free(c);
        free(*column);
        return NULL;
    }
    for (size_t j = 0; j < columns; j++)
        (*column)[j] = (Column){.activity = FIRST_ACTIVITY};
    start(c, mixing);
    return c;
}

int64_t ew_adaptive_encode(const int32_t *values, size_t rows, size_t columns, int mixing, uint8_t *out, size_t room)
{
    Column *column;
    Coder *c = made(columns, mixing, &column);
    if (!c)
        return EW_MEMORY;
    range_start(&c->range, NULL, out, room);
    if (mixing)
        walk(c, (int32_t *)values, rows, columns, column, 1, 0);
    else
        walk(c, (int32_t *)values, rows, columns, column, 0, 0);
    const int64_t written = range_end(&c->range);
    free(column);
    free(c);
    return written;
}

int64_t ew_adaptive_decode(const uint8_t *data, size_t size, size_t rows, size_t columns, int mixing, int32_t *values)
{
    Column *column;
    Coder *c = made(columns, mixing, &column);
    if (!c)
        return EW_MEMORY;
    range_start(&c->range, data, NULL, size);
    if (mixing)
        walk(c, values, rows, columns, column, 1, 1);
    else
        walk(c, values, rows, columns, column, 0, 1);
    const int64_t checked = range_check(&c->range);
    free(column);
    free(c);
    return checked;
}
