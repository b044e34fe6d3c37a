/* Lists of float32 in JSON, read and written without an object for each number: limited API of 3.11.

   An image of 37,632 floats takes msgspec and numpy some 6 ms both ways, nearly all of it in Python's floats; this takes a fifth.
   A number means here what it means to whoever reads JSON into doubles and then rounds to float32: text -> nearest double -> nearest float. */
#define PY_SSIZE_T_CLEAN
#ifndef Py_LIMITED_API
#define Py_LIMITED_API 0x030B0000
#endif
#include <Python.h>

#include <float.h>
#include <math.h>
#include <stdint.h>
#include <string.h>

/* Exact as doubles: 5^22 < 2^53. */
static const double TEN[] = {1e0,  1e1,  1e2,  1e3,  1e4,  1e5,  1e6,  1e7,  1e8,  1e9,  1e10, 1e11,
                             1e12, 1e13, 1e14, 1e15, 1e16, 1e17, 1e18, 1e19, 1e20, 1e21, 1e22};
#define EXACT 22
#define LONGEST 400 /* characters of one number that is read by Python */
#define MOST 20     /* characters of one that is written, with its comma */

#ifdef __SIZEOF_INT128__
__extension__ typedef unsigned __int128 wide;
static uint64_t FIVE[28]; /* 5^27 < 2^63 */
#endif

static int is_space(char c)
{
    return c == ' ' || c == '\n' || c == '\r' || c == '\t';
}

static int is_digit(char c)
{
    return c >= '0' && c <= '9';
}

/* digits · 10^exponent as the nearest double; 0 where it takes more than this to find it. */
static int nearest(uint64_t digits, int exponent, double *out)
{
    if (digits <= (UINT64_C(1) << 53) && exponent >= -EXACT && exponent <= EXACT) {
        /* Both exact, so one operation rounds once (Clinger 1990). */
        *out = exponent < 0 ? (double)digits / TEN[-exponent] : (double)digits * TEN[exponent];
        return 1;
    }
#ifdef __SIZEOF_INT128__
    if (exponent < 0 && exponent >= -27 && digits) {
        /* digits / (5^k · 2^k): the quotient to 62 bits or more, what is left in its last one, then one rounding to 53. */
        uint64_t divisor = FIVE[-exponent];
        int up = __builtin_clzll(digits), down = __builtin_clzll(divisor);
        wide above = (wide)(digits << up) << 63;
        uint64_t below = divisor << down, quotient = (uint64_t)(above / below);
        quotient |= above % below != 0;
        *out = ldexp((double)quotient, down - up - 63 + exponent);
        return 1;
    }
#endif
    return 0;
}

/* One JSON number at *at; moves it behind. 0 where there is none. */
static int number(const char **at, const char *end, double *out)
{
    const char *here = *at, *begin = here;
    uint64_t digits = 0;
    int count = 0, exponent = 0, negative = 0;
    if (here < end && *here == '-')
        negative = 1, here++;
    if (here == end || !is_digit(*here))
        return 0;
    if (*here == '0' && here + 1 < end && is_digit(here[1]))
        return 0;
    for (; here < end && is_digit(*here); here++)
        if (count || *here != '0')
            digits = digits * 10 + (uint64_t)(*here - '0'), count++;
    if (here < end && *here == '.') {
        const char *point = ++here;
        for (; here < end && is_digit(*here); here++, exponent--)
            if (count || *here != '0')
                digits = digits * 10 + (uint64_t)(*here - '0'), count++;
        if (here == point)
            return 0;
    }
    if (here < end && (*here == 'e' || *here == 'E')) {
        int minus = 0, power = 0;
        here++;
        if (here < end && (*here == '+' || *here == '-'))
            minus = *here++ == '-';
        if (here == end || !is_digit(*here))
            return 0;
        for (; here < end && is_digit(*here); here++)
            power = power < 100000 ? power * 10 + (*here - '0') : power;
        exponent += minus ? -power : power;
    }
    *at = here;
    if (count <= 19 && nearest(digits, exponent, out)) { /* 10^19 - 1 < 2^64 */
        *out = negative ? -*out : *out;
        return 1;
    }
    char text[LONGEST + 1];
    size_t length = (size_t)(here - begin);
    if (length > LONGEST)
        return 0;
    memcpy(text, begin, length);
    text[length] = 0;
    *out = PyOS_string_to_double(text, NULL, NULL);
    if (*out == -1.0 && PyErr_Occurred()) {
        PyErr_Clear();
        return 0;
    }
    return 1;
}

static void skip(const char **at, const char *end)
{
    while (*at < end && is_space(**at))
        ++*at;
}

PyDoc_STRVAR(parse_doc, "parse(text, out): whether `text` is a flat JSON list of just as many numbers as `out` (float32) holds, all within its\n"
                        "range; then they are in it.");

static PyObject *parsed(PyObject *self, PyObject *arguments)
{
    (void)self;
    Py_buffer text, out;
    if (!PyArg_ParseTuple(arguments, "y*w*", &text, &out))
        return NULL;
    const char *at = text.buf, *end = at + text.len;
    float *values = out.buf;
    Py_ssize_t count = out.len / (Py_ssize_t)sizeof(float), found = 0;
    int fine = (uintptr_t)out.buf % sizeof(float) == 0;
    skip(&at, end);
    fine = fine && at < end && *at++ == '[';
    for (; fine && found < count; found++) {
        double value;
        skip(&at, end);
        fine = number(&at, end, &value);
        if (!fine)
            break;
        values[found] = (float)value;
        fine = values[found] <= FLT_MAX && values[found] >= -FLT_MAX;
        skip(&at, end);
        if (found + 1 < count)
            fine = fine && at < end && *at++ == ',';
    }
    skip(&at, end);
    fine = fine && at < end && *at++ == ']';
    skip(&at, end);
    fine = fine && at == end;
    PyBuffer_Release(&text);
    PyBuffer_Release(&out);
    return PyBool_FromLong(fine);
}

static char *put(char *at, const char *text)
{
    size_t length = strlen(text);
    memcpy(at, text, length);
    return at + length;
}

/* `count` digits of `value`, with zeros in front. */
static void digits_of(uint32_t value, int count, char *out)
{
    while (count--)
        out[count] = (char)('0' + value % 10), value /= 10;
}

/* The fewest of 7, 8 or 9 digits that are read as `value` again: value = digits · 10^(power − count + 1). 0 where none was found here. */
static int shortest(double value, uint32_t *digits, int *count, int *power)
{
    int binary;
    frexp(value, &binary);
    *power = (int)floor((binary - 1) * 0.30102999566398120); /* log10(2): at most one too low */
    if (*power < -14 || *power > 22)
        return 0;
    if (*power < 22 && (*power + 1 < 0 ? value * TEN[-*power - 1] >= 1.0 : value >= TEN[*power + 1]))
        ++*power;
    for (*count = 7; *count <= 9; ++*count) {
        int shift = *count - 1 - *power;
        if (shift > EXACT || shift < -EXACT)
            return 0;
        double scaled = shift < 0 ? value / TEN[-shift] : value * TEN[shift];
        *digits = (uint32_t)(scaled + 0.5);
        double back = shift < 0 ? *digits * TEN[-shift] : *digits / TEN[shift];
        if ((float)back == (float)value) {
            static const uint32_t over[] = {10000000, 100000000, 1000000000};
            if (*digits == over[*count - 7])
                *digits /= 10, ++*power;
            return 1;
        }
    }
    return 0;
}

/* One number at `at`; where it ends, or NULL with an exception. Takes at most MOST bytes. */
static char *one(float number, char *at)
{
    if (number != number)
        return put(at, "\"NaN\"");
    if (number > FLT_MAX || number < -FLT_MAX)
        return put(at, number > 0 ? "\"Infinity\"" : "\"-Infinity\"");
    if (signbit(number))
        *at++ = '-';
    double value = fabs((double)number);
    if (value == 0)
        return put(at, "0.0");
    uint32_t digits;
    int count, power;
    if (!shortest(value, &digits, &count, &power)) {
        char *text = PyOS_double_to_string(value, 'g', 9, Py_DTSF_ADD_DOT_0, NULL);
        if (!text)
            return NULL;
        at = put(at, text);
        PyMem_Free(text);
        return at;
    }
    while (digits % 10 == 0)
        digits /= 10, count--;
    if (power < -5 || power >= 16) {
        char text[10];
        digits_of(digits, count, text);
        *at++ = text[0];
        *at++ = '.';
        if (count == 1)
            *at++ = '0';
        memcpy(at, text + 1, (size_t)count - 1);
        at += count - 1;
        *at++ = 'e';
        *at++ = power < 0 ? '-' : '+';
        digits_of((uint32_t)(power < 0 ? -power : power), 2, at);
        return at + 2;
    }
    if (power < 0) {
        at = put(at, "0.");
        memset(at, '0', (size_t)(-power - 1));
        at += -power - 1;
        digits_of(digits, count, at);
        return at + count;
    }
    if (count <= power + 1) {
        digits_of(digits, count, at);
        at += count;
        memset(at, '0', (size_t)(power + 1 - count));
        return put(at + power + 1 - count, ".0");
    }
    char text[10];
    digits_of(digits, count, text);
    memcpy(at, text, (size_t)power + 1);
    at += power + 1;
    *at++ = '.';
    memcpy(at, text + power + 1, (size_t)(count - power - 1));
    return at + count - power - 1;
}

PyDoc_STRVAR(write_doc, "write(values): float32 as a flat JSON list, bytes; numbers that JSON hasn't got as \"NaN\", \"Infinity\" and \"-Infinity\".");

static PyObject *written(PyObject *self, PyObject *argument)
{
    (void)self;
    Py_buffer values;
    if (PyObject_GetBuffer(argument, &values, PyBUF_SIMPLE))
        return NULL;
    Py_ssize_t count = values.len / (Py_ssize_t)sizeof(float);
    char *text = count < PY_SSIZE_T_MAX / MOST - 2 ? PyMem_Malloc((size_t)count * MOST + 2) : NULL;
    PyObject *found = NULL;
    if (!text) {
        PyErr_NoMemory();
    } else {
        char *at = text;
        *at++ = '[';
        for (Py_ssize_t place = 0; at && place < count; place++) {
            float value;
            memcpy(&value, (const char *)values.buf + place * (Py_ssize_t)sizeof(float), sizeof value);
            if (place)
                *at++ = ',';
            at = one(value, at);
        }
        if (at) {
            *at++ = ']';
            found = PyBytes_FromStringAndSize(text, at - text);
        }
        PyMem_Free(text);
    }
    PyBuffer_Release(&values);
    return found;
}

static PyMethodDef methods[] = {{"parse", parsed, METH_VARARGS, parse_doc}, {"write", written, METH_O, write_doc}, {NULL, NULL, 0, NULL}};

static struct PyModuleDef module = {PyModuleDef_HEAD_INIT, "_floats", "Lists of float32 in JSON.", 0, methods, NULL, NULL, NULL, NULL};

PyMODINIT_FUNC PyInit__floats(void)
{
#ifdef __SIZEOF_INT128__
    FIVE[0] = 1;
    for (int power = 1; power < 28; power++)
        FIVE[power] = FIVE[power - 1] * 5;
#endif
    return PyModule_Create(&module);
}
