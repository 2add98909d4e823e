/* spinescore_request.h: a study as a request of HTTP. Only spinescore.c includes it. */
#ifndef SPINESCORE_REQUEST_H
#define SPINESCORE_REQUEST_H

#include "spinescore_http.h"

enum { BOUNDARY_BYTES = 32 };

/* Text that is written piece by piece into a buffer. */
typedef struct {
    char *buffer;
    size_t capacity, used;
    int is_full;
} text_type;

static void put_bytes(text_type *text, const char *data, size_t bytes) {
    if (text->capacity - text->used < bytes) {
        text->is_full = 1;
        return;
    }
    memcpy(text->buffer + text->used, data, bytes);
    text->used += bytes;
}

static void put(text_type *text, const char *words) { put_bytes(text, words, strlen(words)); }

static void put_number(text_type *text, uint64_t value) {
    char digits[24];
    size_t i = sizeof digits;
    do digits[--i] = (char)('0' + value % 10);
    while ((value /= 10) != 0);
    put_bytes(text, digits + i, sizeof digits - i);
}

/* Writes ,"name": */
static void put_name(text_type *text, const char *name) {
    put(text, ",\"");
    put(text, name);
    put(text, "\":");
}

static void put_whole(text_type *text, const char *name, uint64_t value) {
    put_name(text, name);
    put_number(text, value);
}

/* Writes ,"name":"words" or ,"name":null */
static void put_words(text_type *text, const char *name, const char *words) {
    char escaped[8];
    put_name(text, name);
    if (words == NULL) {
        put(text, "null");
        return;
    }
    put(text, "\"");
    for (; *words != 0; words++) {
        if (*words == '"' || *words == '\\' || (unsigned char)*words < 0x20) {
            (void)snprintf(escaped, sizeof escaped, "\\u%04x", (unsigned)(unsigned char)*words);
            put(text, escaped);
        } else {
            put_bytes(text, words, 1);
        }
    }
    put(text, "\"");
}

/* Millimetres with nine decimals, without printf of a double, whose decimal point depends on the locale. */
static void put_mm(text_type *text, double value) {
    uint64_t nano = (uint64_t)(value * 1e9 + 0.5);
    char decimals[16];
    put_number(text, nano / 1000000000);
    (void)snprintf(decimals, sizeof decimals, ".%09lu", (unsigned long)(nano % 1000000000));
    put(text, decimals);
}

static void put_view(text_type *text, const spinescore_view *view, unsigned number) {
    put(text, "{\"part\":\"view-");
    put_number(text, number);
    put(text, "\"");
    put_whole(text, "rows", view->rows);
    put_whole(text, "columns", view->columns);
    put_whole(text, "bits_allocated", view->bits_allocated);
    if (view->bits_stored != 0 || view->header == NULL)
        put_whole(text, "bits_stored", view->bits_stored != 0 ? view->bits_stored : view->bits_allocated);
    put_name(text, "pixel_spacing_mm");
    if (view->pixel_spacing_mm[0] > 0) {
        put(text, "[");
        put_mm(text, view->pixel_spacing_mm[0]);
        put(text, ",");
        put_mm(text, view->pixel_spacing_mm[1]);
        put(text, "]");
    } else {
        put(text, "null");
    }
    put_words(text, "photometric_interpretation",
              view->photometric_interpretation != NULL || view->header != NULL ? view->photometric_interpretation
                                                                               : "MONOCHROME2");
    put_words(text, "region", view->region);
    put_words(text, "facing", view->facing);
    put_words(text, "study_instance_uid", view->study_instance_uid);
    put_words(text, "sop_instance_uid", view->sop_instance_uid);
    if (view->header != NULL) {
        put(text, ",\"header\":\"view-");
        put_number(text, number);
        put(text, "-header\"");
    }
    put(text, "}");
}

/* The part `request` as JSON: the options, and the raw views. DICOM files describe themselves and are not listed. */
static void put_request(text_type *text, const spinescore_request *request, const spinescore_view *views) {
    const char *name = request->formats, *end;
    const char *separator = "";
    uint32_t i;
    put(text, "{\"strict\":");
    put(text, request->strict != 0 ? "true" : "false");
    if (request->budget_ms != 0) put_whole(text, "budget_ms", request->budget_ms);
    put_name(text, "formats");
    put(text, "[");
    for (; name != NULL && *name != 0; name = *end == 0 ? end : end + 1, separator = ",") {
        for (end = name; *end != 0 && *end != ','; end++) {}
        put(text, separator);
        put(text, "\"");
        put_bytes(text, name, (size_t)(end - name));
        put(text, "\"");
    }
    put(text, "]");
    put_name(text, "views");
    put(text, "[");
    for (i = 0, separator = ""; i < request->view_count; i++) {
        if (views[i].rows == 0) continue;
        put(text, separator);
        put_view(text, &views[i], i + 1);
        separator = ",";
    }
    put(text, "]}");
}

/* Writes a boundary between parts that is new in each call, so that no pixels can be made to contain it.
   It needs no secrecy. The constants are those of splitmix64. */
static void make_boundary(const void *salt, char boundary[BOUNDARY_BYTES]) {
    uint64_t word = (uint64_t)(uintptr_t)salt ^ ((uint64_t)now_ms() << 20);
#ifdef _WIN32
    LARGE_INTEGER now;
    (void)QueryPerformanceCounter(&now);
    word ^= (uint64_t)now.QuadPart << 16 ^ GetCurrentThreadId();
#else
    struct timespec now;
    (void)clock_gettime(CLOCK_REALTIME, &now);
    word ^= (uint64_t)now.tv_nsec << 32 ^ (uint64_t)getpid();
#endif
    word = (word ^ (word >> 30)) * UINT64_C(0xBF58476D1CE4E5B9);
    word = (word ^ (word >> 27)) * UINT64_C(0x94D049BB133111EB);
    word ^= word >> 31;
    (void)snprintf(boundary, BOUNDARY_BYTES, "spinescore-%08lx%08lx", (unsigned long)(word >> 32),
                   (unsigned long)(word & 0xFFFFFFFFu));
}

static size_t row_bytes(const spinescore_view *view) { return (size_t)view->columns * (view->bits_allocated / 8); }

static size_t sent_bytes(const spinescore_view *view) {
    return view->rows == 0 ? view->data_bytes : row_bytes(view) * view->rows;
}

/* Sends a view: whole if its rows follow each other, else row by row through a buffer, without the padding. */
static int send_view(call_type *call, const spinescore_view *view) {
    const char *row = (const char *)view->data;
    char *buffer = call->handle->bytes;
    size_t bytes = row_bytes(view), capacity = sizeof call->handle->bytes, used = 0, i;
    int status;
    if (view->rows == 0 || view->row_stride_bytes == bytes) return send_all(call, row, sent_bytes(view));
    for (i = 0; i < view->rows; i++) {
        const char *place = row + i * view->row_stride_bytes;
        if (used + bytes > capacity) {
            if ((status = send_all(call, buffer, used)) != SPINESCORE_OK) return status;
            used = 0;
        }
        if (bytes > capacity) {
            if ((status = send_all(call, place, bytes)) != SPINESCORE_OK) return status;
        } else {
            memcpy(buffer + used, place, bytes);
            used += bytes;
        }
    }
    return send_all(call, buffer, used);
}

/* Sends the head of a request. `boundary` is that of a body of `bytes` bytes; NULL: there is no body. */
static int send_head(call_type *call, const char *method, const char *path, const char *boundary, uint64_t bytes) {
    spinescore_handle *handle = call->handle;
    text_type text = {NULL, sizeof handle->line, 0, 0};
    text.buffer = handle->line;
    put(&text, method);
    put(&text, " ");
    put(&text, path);
    put(&text, " HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n");
    if (handle->token[0] != 0) {
        put(&text, "Authorization: Bearer ");
        put(&text, handle->token);
        put(&text, "\r\n");
    }
    if (boundary != NULL) {
        put(&text, "Content-Type: multipart/form-data; boundary=");
        put(&text, boundary);
        put(&text, "\r\nExpect: 100-continue\r\nContent-Length: ");
        put_number(&text, bytes);
        put(&text, "\r\n");
    }
    put(&text, "\r\n");
    return send_all(call, handle->line, text.used);
}

/* A part of the body after the part `request`: the text before it ends at `text_end`. */
typedef struct {
    const spinescore_view *view;
    size_t text_end;
    int is_header; /* of a DICOM file; else the view itself */
} part_type;

/* Writes the head of a part, view-1 or view-1-header. */
static part_type put_part(text_type *text, const char *boundary, const spinescore_view *view, unsigned number,
                          int is_header) {
    part_type part;
    put(text, "\r\n--");
    put(text, boundary);
    put(text, "\r\nContent-Disposition: form-data; name=\"view-");
    put_number(text, number);
    put(text, is_header ? "-header" : "");
    put(text, "\"; filename=\"view-");
    put_number(text, number);
    put(text, is_header || view->rows == 0 ? ".dcm\"\r\nContent-Type: application/dicom\r\n\r\n"
                                           : ".raw\"\r\nContent-Type: application/octet-stream\r\n\r\n");
    part.view = view;
    part.text_end = text->used;
    part.is_header = is_header;
    return part;
}

/* Sends the study as multipart/form-data. */
static int send_study(call_type *call, const spinescore_request *request, const spinescore_view *views) {
    char *texts = call->handle->text;
    text_type text = {NULL, sizeof call->handle->text, 0, 0};
    part_type parts[2 * MAX_VIEWS];
    size_t begin = 0;
    uint64_t bytes = 0;
    char boundary[BOUNDARY_BYTES];
    uint32_t i, count = 0;
    int status;
    text.buffer = texts;
    make_boundary(call, boundary);
    put(&text, "--");
    put(&text, boundary);
    put(&text, "\r\nContent-Disposition: form-data; name=\"request\"\r\nContent-Type: application/json\r\n\r\n");
    put_request(&text, request, views);
    for (i = 0; i < request->view_count; i++) {
        if (views[i].header != NULL) parts[count++] = put_part(&text, boundary, &views[i], i + 1, 1);
        parts[count++] = put_part(&text, boundary, &views[i], i + 1, 0);
        bytes += views[i].header_bytes + sent_bytes(&views[i]);
    }
    put(&text, "\r\n--");
    put(&text, boundary);
    put(&text, "--\r\n");
    if (text.is_full) return usage(call->problem, "The texts of the views are too long.");
    status = send_head(call, "POST", "/v1/score", boundary, bytes + text.used);
    if (status == SPINESCORE_OK) status = await_continue(call);
    for (i = 0; status == SPINESCORE_OK && i < count; i++) {
        const spinescore_view *view = parts[i].view;
        status = send_all(call, texts + begin, parts[i].text_end - begin);
        begin = parts[i].text_end;
        if (status != SPINESCORE_OK) break;
        status = parts[i].is_header ? send_all(call, (const char *)view->header, view->header_bytes)
                                    : send_view(call, view);
    }
    return status == SPINESCORE_OK ? send_all(call, texts + begin, text.used - begin) : status;
}

#endif
