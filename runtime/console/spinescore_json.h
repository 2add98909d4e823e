/* spinescore_json.h: a strict reader of JSON. Only spinescore.c includes it.

   The whole text is checked first, by check_json. The functions after it read only checked text.
   Nothing is allocated, and nothing depends on the locale. */
#ifndef SPINESCORE_JSON_H
#define SPINESCORE_JSON_H

#include "spinescore_private.h"

typedef struct {
    const char *begin, *end;
} slice_type;

static const char *skip_space(const char *p, const char *end) {
    while (p < end && (*p == ' ' || *p == '\t' || *p == '\n' || *p == '\r')) p++;
    return p;
}

static const char *skip_digits(const char *p, const char *end) {
    while (p < end && *p >= '0' && *p <= '9') p++;
    return p;
}

static int hex_value(char c) {
    if (c >= '0' && c <= '9') return c - '0';
    if (c >= 'a' && c <= 'f') return c - 'a' + 10;
    return c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
}

/* The value of four hexadecimal digits; -1 if they are not there. */
static long read_hex4(const char *p, const char *end) {
    long value = 0;
    int i;
    if (end - p < 4) return -1;
    for (i = 0; i < 4; i++) {
        if (hex_value(p[i]) < 0) return -1;
        value = value * 16 + hex_value(p[i]);
    }
    return value;
}

/* The length of the UTF-8 sequence at `p`; 0 if it is none (overlong, a surrogate, cut off, or beyond U+10FFFF). */
static int utf8_length(const char *p, const char *end) {
    const unsigned char *u = (const unsigned char *)p;
    int i, length = u[0] < 0x80 ? 1 : u[0] < 0xC2 ? 0 : u[0] < 0xE0 ? 2 : u[0] < 0xF0 ? 3 : u[0] < 0xF5 ? 4 : 0;
    if (end - p < length) return 0;
    for (i = 1; i < length; i++)
        if ((u[i] & 0xC0) != 0x80) return 0;
    if (length >= 3 && ((u[0] == 0xE0 && u[1] < 0xA0) || (u[0] == 0xED && u[1] > 0x9F) ||
                        (u[0] == 0xF0 && u[1] < 0x90) || (u[0] == 0xF4 && u[1] > 0x8F)))
        return 0;
    return length;
}

static int put_utf8(unsigned long c, char out[4]) {
    static const unsigned long marks[] = {0, 0, 0xC0, 0xE0, 0xF0};
    int i, length = c < 0x80 ? 1 : c < 0x800 ? 2 : c < 0x10000 ? 3 : 4;
    for (i = length - 1; i > 0; i--, c >>= 6) out[i] = (char)(0x80 | (c & 63));
    out[0] = (char)(marks[length] | c);
    return length;
}

/* Reads the character of a string at `p`, escaped or not, into `out`. Returns the place after it, or NULL. */
static const char *read_character(const char *p, const char *end, char out[4], int *length) {
    static const char names[] = "\"\\/bfnrt", values[] = "\"\\/\b\f\n\r\t";
    const char *name;
    long high, low;
    if (p >= end || (unsigned char)*p < 0x20) return NULL;
    if (*p != '\\') {
        if ((*length = utf8_length(p, end)) == 0) return NULL;
        memcpy(out, p, (size_t)*length);
        return p + *length;
    }
    if (end - p < 2 || p[1] == 0) return NULL;
    if ((name = strchr(names, p[1])) != NULL) {
        out[0] = values[name - names];
        *length = 1;
        return p + 2;
    }
    if (p[1] != 'u' || (high = read_hex4(p + 2, end)) < 0 || (high >= 0xDC00 && high < 0xE000)) return NULL;
    p += 6;
    if (high >= 0xD800 && high < 0xDC00) {
        if (end - p < 6 || p[0] != '\\' || p[1] != 'u') return NULL;
        low = read_hex4(p + 2, end);
        if (low < 0xDC00 || low > 0xDFFF) return NULL;
        high = 0x10000 + ((high - 0xD800) << 10) + (low - 0xDC00);
        p += 6;
    }
    *length = put_utf8((unsigned long)high, out);
    return p;
}

/* The string at `p` as text, cut between characters if it is too long. Returns the place after it, or NULL. */
static const char *read_string(const char *p, const char *end, char *out, size_t capacity) {
    char character[4];
    size_t used = 0;
    int length = 0, is_full = capacity == 0;
    if (p >= end || *p != '"') return NULL;
    for (p++; p < end && *p != '"';) {
        if ((p = read_character(p, end, character, &length)) == NULL) return NULL;
        is_full = is_full || used + (size_t)length >= capacity;
        if (!is_full) {
            memcpy(out + used, character, (size_t)length);
            used += (size_t)length;
        }
    }
    if (capacity > 0) out[used] = 0;
    return p < end ? p + 1 : NULL;
}

/* Reads digits into a number of at most 18 digits. Returns how many digits did not fit. */
static long read_digits(const char *p, const char *end, uint64_t *mantissa) {
    for (; p < end; p++) {
        if (*mantissa >= UINT64_C(100000000000000000)) break;
        *mantissa = *mantissa * 10 + (uint64_t)(*p - '0');
    }
    return (long)(end - p);
}

/* The value of the digits of an exponent, such as -5 in 1e-5. Returns the place after them; NULL if there are none. */
static const char *read_exponent(const char *p, const char *end, long *exponent) {
    const char *first;
    int is_negative = p < end && *p == '-';
    if (p < end && (*p == '+' || *p == '-')) p++;
    first = p;
    for (*exponent = 0; p < end && *p >= '0' && *p <= '9'; p++)
        if (*exponent < 100000) *exponent = *exponent * 10 + (*p - '0');
    if (is_negative) *exponent = -*exponent;
    return p > first ? p : NULL;
}

/* The number at `p`, in every locale. Exact to the last bit for up to 15 digits and an exponent of up to 22. */
static const char *read_number(const char *p, const char *end, double *value) {
    const char *first;
    uint64_t mantissa = 0;
    double result, power = 1;
    long exponent, stated = 0;
    int is_negative = p < end && *p == '-';
    p += is_negative;
    first = p;
    p = skip_digits(p, end);
    if (p == first || (*first == '0' && p - first > 1)) return NULL;
    exponent = read_digits(first, p, &mantissa);
    if (p < end && *p == '.') {
        first = ++p;
        p = skip_digits(p, end);
        if (p == first) return NULL;
        exponent += read_digits(first, p, &mantissa) - (long)(p - first);
    }
    if (p < end && (*p == 'e' || *p == 'E') && (p = read_exponent(p + 1, end, &stated)) == NULL) return NULL;
    exponent += stated;
    result = (double)mantissa;
    for (stated = exponent < 0 ? -exponent : exponent; stated > 0 && mantissa != 0 && power < 1e300; stated--)
        power *= 10;
    result = exponent < 0 ? result / power : result * power;
    if (stated > 0 && mantissa != 0) result = exponent < 0 ? 0 : 1e308; /* beyond anything that a report has */
    *value = is_negative ? -result : result;
    return p;
}

static const char *check_value(const char *p, const char *end, int depth);

/* Checks the entries of an object or array, whose opening bracket is at `p`. */
static const char *check_entries(const char *p, const char *end, int depth) {
    char close = *p == '{' ? '}' : ']';
    if (depth >= MAX_DEPTH) return NULL;
    p = skip_space(p + 1, end);
    if (p < end && *p == close) return p + 1;
    for (;;) {
        if (close == '}') {
            if ((p = read_string(p, end, NULL, 0)) == NULL) return NULL;
            p = skip_space(p, end);
            if (p >= end || *p != ':') return NULL;
            p = skip_space(p + 1, end);
        }
        if ((p = check_value(p, end, depth + 1)) == NULL) return NULL;
        p = skip_space(p, end);
        if (p < end && *p == close) return p + 1;
        if (p >= end || *p != ',') return NULL;
        p = skip_space(p + 1, end);
    }
}

/* Checks the value at `p` and returns the place after it; NULL if it is no JSON, or deeper than MAX_DEPTH. */
static const char *check_value(const char *p, const char *end, int depth) {
    static const char *const words[] = {"true", "false", "null"};
    double number;
    size_t i, length;
    if (p >= end) return NULL;
    if (*p == '"') return read_string(p, end, NULL, 0);
    if (*p == '{' || *p == '[') return check_entries(p, end, depth);
    if (*p == '-' || (*p >= '0' && *p <= '9')) return read_number(p, end, &number);
    for (i = 0; i < 3; i++) {
        length = strlen(words[i]);
        if ((size_t)(end - p) >= length && memcmp(p, words[i], length) == 0) return p + length;
    }
    return NULL;
}

/* Checks that the text is one JSON object. */
static int check_json(const char *json, size_t bytes, slice_type *root) {
    root->begin = skip_space(json, json + bytes);
    root->end = check_value(root->begin, json + bytes, 0);
    return root->end != NULL && *root->begin == '{' && skip_space(root->end, json + bytes) == json + bytes;
}

/* Moves `p` to the next entry of an array or object and returns whether there is one. `key` gets an object's key. */
static int next_entry(slice_type parent, const char **p, char *key, size_t capacity, slice_type *value) {
    const char *end = parent.end - 1; /* the closing bracket */
    *p = skip_space(*p == NULL ? parent.begin + 1 : *p, end);
    if (*p < end && **p == ',') *p = skip_space(*p + 1, end);
    if (*p >= end) return 0;
    if (*parent.begin == '{') {
        *p = skip_space(read_string(*p, end, key, capacity), end); /* the colon */
        *p = skip_space(*p + 1, end);
    }
    value->begin = *p;
    *p = value->end = check_value(*p, end, 0);
    return 1;
}

#endif
