/* core.h for Python: limited API of 3.11, buffers in and out, the GIL given up while a loop runs. */
#define PY_SSIZE_T_CLEAN
#ifndef Py_LIMITED_API
#define Py_LIMITED_API 0x030B0000
#endif
#include <Python.h>

#include <string.h>

#include "core.h"

/* The same texts as in edgewise.coding.fallback. */
static const char *const messages[] = {"", "it is truncated", "it is damaged", "there is no room for the result",
                                       "its parameters are impossible"};

static PyObject *told(int64_t result)
{
    if (result >= 0)
        return PyLong_FromLongLong(result);
    if (result == EW_MEMORY)
        return PyErr_NoMemory();
    PyErr_SetString(PyExc_ValueError, messages[-result]);
    return NULL;
}

/* Whether the buffer holds `count` items of `bytes` each, in their place in memory. */
static int holds(const Py_buffer *buffer, Py_ssize_t count, size_t bytes)
{
    if (count < 0 || (size_t)buffer->len / bytes < (size_t)count || (uintptr_t)buffer->buf % bytes) {
        PyErr_SetString(PyExc_ValueError, "a buffer is too small, or not aligned");
        return 0;
    }
    return 1;
}

static int product(Py_ssize_t rows, Py_ssize_t columns, Py_ssize_t *count)
{
    if (rows < 0 || columns < 0 || (columns && rows > PY_SSIZE_T_MAX / columns)) {
        PyErr_SetString(PyExc_ValueError, messages[-EW_ARGUMENT]);
        return 0;
    }
    *count = rows * columns;
    return 1;
}

typedef int64_t (*Transform)(const uint8_t *in, size_t size, const void *table, unsigned bits, unsigned lanes, uint8_t *out, size_t room);

static int64_t rans_encode(const uint8_t *in, size_t size, const void *table, unsigned bits, unsigned lanes, uint8_t *out, size_t room)
{
    return ew_rans_encode(in, size, table, bits, lanes, out, room);
}

static int64_t rans_decode(const uint8_t *in, size_t size, const void *table, unsigned bits, unsigned lanes, uint8_t *out, size_t room)
{
    return ew_rans_decode(in, size, table, bits, lanes, out, room);
}

static int64_t huffman_encode(const uint8_t *in, size_t size, const void *table, unsigned bits, unsigned lanes, uint8_t *out, size_t room)
{
    (void)bits, (void)lanes;
    return ew_huffman_encode(in, size, table, out, room);
}

static int64_t huffman_decode(const uint8_t *in, size_t size, const void *table, unsigned bits, unsigned lanes, uint8_t *out, size_t room)
{
    (void)bits, (void)lanes;
    return ew_huffman_decode(in, size, table, out, room);
}

/* Bytes and a table of 256 in, bytes out; rANS has two numbers behind them. */
static PyObject *transformed(PyObject *args, Transform transform, size_t item)
{
    Py_buffer in, table, out;
    unsigned bits = 0, lanes = 0;
    int64_t result = EW_ARGUMENT;
    if (!PyArg_ParseTuple(args, "y*y*w*|II", &in, &table, &out, &bits, &lanes))
        return NULL;
    if (holds(&table, 256, item)) {
        Py_BEGIN_ALLOW_THREADS
        result = transform(in.buf, (size_t)in.len, table.buf, bits, lanes, out.buf, (size_t)out.len);
        Py_END_ALLOW_THREADS
    }
    PyBuffer_Release(&in);
    PyBuffer_Release(&table);
    PyBuffer_Release(&out);
    return PyErr_Occurred() ? NULL : told(result);
}

static PyObject *py_rans_encode(PyObject *self, PyObject *args)
{
    (void)self;
    return transformed(args, rans_encode, sizeof(uint32_t));
}

static PyObject *py_rans_decode(PyObject *self, PyObject *args)
{
    (void)self;
    return transformed(args, rans_decode, sizeof(uint32_t));
}

static PyObject *py_huffman_encode(PyObject *self, PyObject *args)
{
    (void)self;
    return transformed(args, huffman_encode, sizeof(uint8_t));
}

static PyObject *py_huffman_decode(PyObject *self, PyObject *args)
{
    (void)self;
    return transformed(args, huffman_decode, sizeof(uint8_t));
}

static PyObject *py_adaptive_encode(PyObject *self, PyObject *args)
{
    Py_buffer values, out;
    Py_ssize_t rows, columns, count;
    int mixing;
    int64_t result = EW_ARGUMENT;
    (void)self;
    if (!PyArg_ParseTuple(args, "y*nnpw*", &values, &rows, &columns, &mixing, &out))
        return NULL;
    if (product(rows, columns, &count) && holds(&values, count, sizeof(int32_t))) {
        Py_BEGIN_ALLOW_THREADS
        result = ew_adaptive_encode(values.buf, (size_t)rows, (size_t)columns, mixing, out.buf, (size_t)out.len);
        Py_END_ALLOW_THREADS
    }
    PyBuffer_Release(&values);
    PyBuffer_Release(&out);
    return PyErr_Occurred() ? NULL : told(result);
}

static PyObject *py_adaptive_decode(PyObject *self, PyObject *args)
{
    Py_buffer data, values;
    Py_ssize_t rows, columns, count;
    int mixing;
    int64_t result = EW_ARGUMENT;
    (void)self;
    if (!PyArg_ParseTuple(args, "y*nnpw*", &data, &rows, &columns, &mixing, &values))
        return NULL;
    if (product(rows, columns, &count) && holds(&values, count, sizeof(int32_t))) {
        Py_BEGIN_ALLOW_THREADS
        result = ew_adaptive_decode(data.buf, (size_t)data.len, (size_t)rows, (size_t)columns, mixing, values.buf);
        Py_END_ALLOW_THREADS
    }
    PyBuffer_Release(&data);
    PyBuffer_Release(&values);
    return PyErr_Occurred() ? NULL : told(result);
}

static PyMethodDef methods[] = {
    {"rans_encode", py_rans_encode, METH_VARARGS, NULL},
    {"rans_decode", py_rans_decode, METH_VARARGS, NULL},
    {"huffman_encode", py_huffman_encode, METH_VARARGS, NULL},
    {"huffman_decode", py_huffman_decode, METH_VARARGS, NULL},
    {"adaptive_encode", py_adaptive_encode, METH_VARARGS, NULL},
    {"adaptive_decode", py_adaptive_decode, METH_VARARGS, NULL},
    {NULL, NULL, 0, NULL},
};

static PyModuleDef_Slot slots[] = {{0, NULL}};

static struct PyModuleDef module = {
    PyModuleDef_HEAD_INIT, "_native", "The hot loops of edgewise.coding.", 0, methods, slots, NULL, NULL, NULL,
};

PyMODINIT_FUNC PyInit__native(void)
{
    return PyModuleDef_Init(&module);
}
