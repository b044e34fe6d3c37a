/* Runs the core's functions on records from standard input: for tests under emulators and sanitizers, without Python.
 *
 * A record: seven 32-bit numbers (function, three arguments, bytes of the table, bytes of the data, room for the result), table, data.
 * The answer: 64 bits of result, 32 of length, the bytes. Buffers have exactly the bytes they need, so that a step beyond them shows. */
#include "core.h"

#include <stdio.h>
#include <stdlib.h>

static uint8_t *filled(size_t size)
{
    uint8_t *bytes = malloc(size ? size : 1);
    if (!bytes || fread(bytes, 1, size, stdin) != size)
        exit(2);
    return bytes;
}

static int64_t call(const uint32_t *head, const uint8_t *table, const uint8_t *data, uint8_t *out)
{
    const size_t size = head[5], room = head[6];
    switch (head[0]) {
    case 0:
        return ew_rans_encode(data, size, (const uint32_t *)(const void *)table, head[1], head[2], out, room);
    case 1:
        return ew_rans_decode(data, size, (const uint32_t *)(const void *)table, head[1], head[2], out, room);
    case 2:
        return ew_huffman_encode(data, size, table, out, room);
    case 3:
        return ew_huffman_decode(data, size, table, out, room);
    case 4:
        return ew_adaptive_encode((const int32_t *)(const void *)data, head[1], head[2], (int)head[3], out, room);
    default:
        return ew_adaptive_decode(data, size, head[1], head[2], (int)head[3], (int32_t *)(void *)out);
    }
}

int main(void)
{
    uint32_t head[7];
    while (fread(head, sizeof head, 1, stdin) == 1) {
        uint8_t *const table = filled(head[4]), *const data = filled(head[5]), *const out = calloc(head[6] ? head[6] : 1, 1);
        if (!out)
            return 2;
        const int64_t result = call(head, table, data, out);
        const uint32_t length = result < 0 ? 0 : head[0] % 2 ? head[6] : (uint32_t)result;
        fwrite(&result, sizeof result, 1, stdout);
        fwrite(&length, sizeof length, 1, stdout);
        fwrite(out, 1, length, stdout);
        free(table);
        free(data);
        free(out);
    }
    return 0;
}
