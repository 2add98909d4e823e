/* spinescore.c: the calls of spinescore.h. It includes the other parts, so that it alone is compiled.

   Every call opens a connection of its own and closes it at its end: a service that was restarted needs no care, and a
   connection that is closed early tells the service to drop the study. */
#if !defined(_WIN32) && !defined(_POSIX_C_SOURCE)
#define _POSIX_C_SOURCE 200809L
#endif
#if defined(__APPLE__) && !defined(_DARWIN_C_SOURCE)
#define _DARWIN_C_SOURCE
#endif
#if defined(_MSC_VER) && !defined(_CRT_SECURE_NO_WARNINGS)
#define _CRT_SECURE_NO_WARNINGS
#endif

#include "spinescore_request.h"

/* ---- The handle ---- */

static int is_printable(const char *text, size_t most) {
    size_t i;
    for (i = 0; i < most && text[i] > ' ' && text[i] <= '~'; i++) {}
    return i > 0 && text[i] == 0;
}

/* Reads 127.a.b.c:PORT or localhost:PORT. */
static int read_tcp(spinescore_handle *handle, const char *address) {
    const char *colon = strrchr(address, ':'), *p = address;
    int64_t port = colon == NULL ? -1 : decimal(colon + 1);
    int i, digits;
    if (port < 1 || port > 65535) return 0;
    handle->is_tcp = 1;
    handle->port = (unsigned)port;
    handle->host = 0x7F000001;
    if (strncmp(address, "localhost:", 10) == 0) return 1;
    for (handle->host = 0, i = 0; i < 4; i++, p++) {
        uint32_t part = 0;
        for (digits = 0; *p >= '0' && *p <= '9' && digits < 3; p++, digits++) part = part * 10 + (uint32_t)(*p - '0');
        if (digits == 0 || part > 255 || *p != (i < 3 ? '.' : ':')) return 0;
        handle->host = handle->host * 256 + part;
    }
    return p == colon + 1 && handle->host >> 24 == 127;
}

static int set_address(spinescore_handle *handle, const char *address, spinescore_problem *problem) {
    size_t length = address == NULL ? 0 : strlen(address);
    if (length == 0 || length >= sizeof handle->address)
        return usage(problem, "options.address is missing or too long.");
    memcpy(handle->address, address, length + 1);
    if (strchr(address, '/') == NULL && strchr(address, '\\') == NULL) {
        if (read_tcp(handle, address)) return SPINESCORE_OK;
        return usage(problem, "options.address is neither the path of a Unix socket nor 127.0.0.1:PORT.");
    }
#ifdef _WIN32
    return usage(problem, "On Windows the service is reached at 127.0.0.1:PORT.");
#else
    if (length >= sizeof((struct sockaddr_un *)0)->sun_path)
        return usage(problem, "The path of the Unix socket is too long.");
    return SPINESCORE_OK;
#endif
}

/* Fills a new handle, whose memory is zero. */
static int set_options(spinescore_handle *handle, const spinescore_options *options, spinescore_problem *problem) {
    if (options->token != NULL) {
        if (!is_printable(options->token, sizeof handle->token - 1))
            return usage(problem, "options.token is empty, too long, or has a blank or a character that is not ASCII.");
        memcpy(handle->token, options->token, strlen(options->token) + 1);
    }
    handle->connect_timeout_ms = options->connect_timeout_ms != 0 ? options->connect_timeout_ms : 2000;
    handle->send_timeout_ms = options->send_timeout_ms != 0 ? options->send_timeout_ms : 10000;
    handle->timeout_ms = options->timeout_ms != 0 ? options->timeout_ms : 60000;
    return set_address(handle, options->address, problem);
}

/* Windows counts the programs and libraries that use its sockets. Returns 0 if they cannot be used. */
static int start_sockets(void) {
#ifdef _WIN32
    WSADATA data;
    return WSAStartup(MAKEWORD(2, 2), &data) == 0;
#else
    return 1;
#endif
}

static int open_handle(const spinescore_options *theirs, spinescore_handle **handle, spinescore_problem *problem) {
    spinescore_options options;
    spinescore_handle *opened;
    size_t capacity;
    int status;
    if (!take(&options, sizeof options, theirs)) return wrong_struct(problem, "options");
    capacity = options.answer_bytes != 0 ? options.answer_bytes : (size_t)1 << 20;
    opened = capacity < SIZE_MAX / 2 ? (spinescore_handle *)malloc(sizeof *opened + capacity) : NULL;
    if (opened == NULL)
        return fail(problem, SPINESCORE_NO_MEMORY, "Give a smaller buffer.", "There is no memory for the handle.");
    memset(opened, 0, sizeof *opened);
    opened->answer = (char *)(opened + 1);
    opened->answer_capacity = capacity;
    status = set_options(opened, &options, problem);
    if (status == SPINESCORE_OK && !start_sockets())
        status = fail(problem, SPINESCORE_NO_MEMORY, "Repair Windows Sockets.", "Windows Sockets cannot be used.");
    if (status == SPINESCORE_OK)
        *handle = opened;
    else
        free(opened);
    return status;
}

int spinescore_open(const spinescore_options *options, spinescore_handle **handle, spinescore_problem *problem) {
    spinescore_problem ours;
    clear_problem(&ours);
    if (handle == NULL) {
        (void)usage(&ours, "There is no place for the handle.");
    } else {
        *handle = NULL;
        (void)open_handle(options, handle, &ours);
    }
    return finish(problem, &ours);
}

void spinescore_close(spinescore_handle *handle) {
    if (handle == NULL) return;
#ifdef _WIN32
    (void)WSACleanup();
#endif
    wipe(handle, sizeof *handle + handle->answer_capacity); /* the token, and the rest of the last study */
    free(handle);
}

int spinescore_cancel(spinescore_handle *handle) {
    return handle != NULL && swap_state(&handle->state, RUNNING, STOPPED) == RUNNING;
}

/* ---- The calls ---- */

/* Takes the handle and opens a connection. end_call must follow, whatever it returns. */
static int begin_call(call_type *call, spinescore_handle *handle, spinescore_problem *problem) {
    memset(call, 0, sizeof *call);
    call->problem = problem;
    call->socket = NO_SOCKET;
    if (handle == NULL) return usage(problem, "The handle is NULL.");
    if (swap_state(&handle->state, IDLE, RUNNING) != IDLE)
        return fail(problem, SPINESCORE_IN_USE, "Open a handle for each thread.",
                    "Another thread makes a call with this handle.");
    call->handle = handle;
    call->start_ms = now_ms();
    call->deadline_ms = call->start_ms + handle->timeout_ms;
    return open_connection(call);
}

static void end_call(call_type *call) {
    close_socket(call->socket);
    if (call->handle == NULL) return;
    if (swap_state(&call->handle->state, RUNNING, IDLE) == STOPPED)
        (void)swap_state(&call->handle->state, STOPPED, IDLE);
}

/* Gives a sink that is the handle's own buffer. */
static sink_type own_sink(spinescore_handle *handle) {
    sink_type sink = {NULL, NULL, 0, 0};
    sink.buffer = handle->answer;
    sink.capacity = handle->answer_capacity;
    return sink;
}

/* Reads a problem document into the handle's own buffer. */
static int read_own_problem(call_type *call) {
    sink_type sink = own_sink(call->handle);
    return read_problem(call, &sink);
}

/* Sends a request without a body, and moves the body of its answer to the sink. */
static int get(call_type *call, const char *path, sink_type *sink) {
    int status = send_head(call, "GET", path, NULL, 0);
    if (status > SPINESCORE_OK || (status = read_head(call)) != SPINESCORE_OK) return status;
    return call->http_status == 200 ? read_body(call, sink) : read_own_problem(call);
}

int spinescore_ready(spinescore_handle *handle, spinescore_problem *problem) {
    spinescore_problem ours;
    call_type call;
    clear_problem(&ours);
    if (begin_call(&call, handle, &ours) == SPINESCORE_OK) {
        sink_type sink = own_sink(handle);
        (void)get(&call, "/health/ready", &sink);
    }
    end_call(&call);
    return finish(problem, &ours);
}

static int check_view(const spinescore_view *view) {
    size_t bytes = row_bytes(view);
    if (view->data == NULL || view->data_bytes == 0) return 0;
    if ((view->header != NULL) != (view->header_bytes != 0)) return 0;
    if (view->rows == 0) return view->header == NULL;
    if (view->rows > 65535 || view->columns == 0 || view->columns > 65535) return 0;
    if ((view->bits_allocated != 8 && view->bits_allocated != 16) || view->bits_stored > view->bits_allocated) return 0;
    if (!(view->pixel_spacing_mm[0] >= 0 && view->pixel_spacing_mm[0] < 1000)) return 0;
    if (!(view->pixel_spacing_mm[1] >= 0 && view->pixel_spacing_mm[1] < 1000)) return 0;
    if ((view->pixel_spacing_mm[0] > 0) != (view->pixel_spacing_mm[1] > 0)) return 0;
    if (view->row_stride_bytes < bytes || view->data_bytes < bytes) return 0;
    return view->rows - 1 <= (view->data_bytes - bytes) / view->row_stride_bytes; /* the last row needs no padding */
}

/* Copies the views, whose struct may be newer and longer, and checks them. */
static int take_views(const spinescore_request *request, spinescore_view views[MAX_VIEWS],
                      spinescore_problem *problem) {
    const char *next = (const char *)request->views, *c;
    uint32_t i;
    if (next == NULL || request->view_count < 1 || request->view_count > MAX_VIEWS)
        return usage(problem, "A study has 1 to 4 views.");
    for (c = request->formats; c != NULL && *c != 0; c++)
        if ((*c < 'a' || *c > 'z') && *c != ',' && *c != '-')
            return usage(problem, "request.formats is no list such as sr,gsps.");
    for (i = 0; i < request->view_count; i++) {
        if (!take(&views[i], sizeof views[i], next))
            return wrong_struct(problem, "request.views");
        next += request->views->struct_size;
        if (views[i].row_stride_bytes == 0) views[i].row_stride_bytes = row_bytes(&views[i]);
        if (!check_view(&views[i]))
            return usage(problem, "A view's rows, columns, bits, stride, spacing, data, header do not fit together.");
    }
    return SPINESCORE_OK;
}

/* Scores on an open connection. The answer goes to the caller's buffer if there is one, and is ended with a NUL.
   A study that cannot be scored has a report, too: in the problem document, with the reject of each region. */
static int score(call_type *call, const spinescore_request *request, const spinescore_view *views,
                 spinescore_report *report) {
    sink_type sink = own_sink(call->handle);
    spinescore_problem ignored;
    int status = send_study(call, request, views);
    if (status > SPINESCORE_OK || (status = read_head(call)) != SPINESCORE_OK) return status;
    if (request->answer != NULL) {
        sink.buffer = request->answer;
        sink.capacity = request->answer_capacity;
    }
    sink.capacity--; /* for the NUL */
    report->answer_bytes = call->length;
    status = call->http_status == 200 ? read_body(call, &sink) : read_problem(call, &sink);
    sink.buffer[sink.used] = 0;
    if (status == SPINESCORE_REJECTED) (void)parse(sink.buffer, (size_t)sink.used, report, &ignored);
    if (status != SPINESCORE_OK) return status;
    return parse(sink.buffer, (size_t)sink.used, report, call->problem);
}

int spinescore_score(spinescore_handle *handle, const spinescore_request *request, spinescore_report *report,
                     spinescore_problem *problem) {
    spinescore_problem ours;
    spinescore_report full;
    spinescore_request taken;
    spinescore_view views[MAX_VIEWS];
    call_type call;
    memset(&full, 0, sizeof full);
    clear_problem(&ours);
    if (!take(&taken, sizeof taken, request)) {
        (void)wrong_struct(&ours, "request");
    } else if (!has_size(report, sizeof full)) {
        (void)wrong_struct(&ours, "report");
    } else if (taken.answer != NULL && taken.answer_capacity == 0) {
        (void)usage(&ours, "request.answer_capacity is 0.");
    } else if (take_views(&taken, views, &ours) == SPINESCORE_OK) {
        if (begin_call(&call, handle, &ours) == SPINESCORE_OK) {
            if (taken.answer != NULL) taken.answer[0] = 0;
            (void)score(&call, &taken, views, &full);
        }
        end_call(&call);
    }
    give(report, &full, sizeof full);
    return finish(problem, &ours);
}

int spinescore_parse(const char *json, size_t bytes, spinescore_report *report, spinescore_problem *problem) {
    spinescore_problem ours;
    spinescore_report full;
    clear_problem(&ours);
    memset(&full, 0, sizeof full);
    if (json == NULL)
        (void)usage(&ours, "The JSON is NULL.");
    else if (!has_size(report, sizeof full))
        (void)wrong_struct(&ours, "report");
    else
        (void)parse(json, bytes, &full, &ours);
    give(report, &full, sizeof full);
    return finish(problem, &ours);
}

/* Whether a path is one of a result, without a character that ends a line or a word of the request's head. */
static int is_result(const char *path) {
    return path != NULL && strncmp(path, "/v1/results/", 12) == 0 && is_printable(path, 1023);
}

int spinescore_fetch(spinescore_handle *handle, const char *path, void *buffer, size_t capacity, size_t *bytes,
                     spinescore_problem *problem) {
    spinescore_problem ours;
    call_type call;
    sink_type sink = {NULL, NULL, 0, 0};
    clear_problem(&ours);
    if (bytes != NULL) *bytes = 0;
    if (buffer == NULL || bytes == NULL || !is_result(path)) {
        (void)usage(&ours, "The buffer or its size is missing, or the path is not that of a result.");
        return finish(problem, &ours);
    }
    sink.buffer = (char *)buffer;
    sink.capacity = capacity;
    if (begin_call(&call, handle, &ours) == SPINESCORE_OK) {
        int status = get(&call, path, &sink);
        if (status == SPINESCORE_OK) *bytes = (size_t)sink.used;
        if (status == SPINESCORE_TOO_LARGE) *bytes = (size_t)call.length;
    }
    end_call(&call);
    return finish(problem, &ours);
}

#ifdef _WIN32 /* the functions of the C library take names in the code page of the computer, not in UTF-8 */
static int to_wide(const char *name, wchar_t wide[1024]) {
    return MultiByteToWideChar(CP_UTF8, MB_ERR_INVALID_CHARS, name, -1, wide, 1024) > 0;
}
static FILE *open_file(const char *name) {
    wchar_t wide[1024];
    return to_wide(name, wide) ? _wfopen(wide, L"wb") : NULL;
}
static int rename_file(const char *from, const char *to) {
    wchar_t source[1024], target[1024];
    return to_wide(from, source) && to_wide(to, target) && MoveFileExW(source, target, MOVEFILE_REPLACE_EXISTING);
}
static void remove_file(const char *name) {
    wchar_t wide[1024];
    if (to_wide(name, wide)) (void)_wremove(wide);
}
#else
static FILE *open_file(const char *name) { return fopen(name, "wb"); }
static int rename_file(const char *from, const char *to) { return rename(from, to) == 0; }
static void remove_file(const char *name) { (void)remove(name); }
#endif

/* Writes the result to the file `part`, then renames it. */
static int fetch_file(call_type *call, const char *path, const char *part, const char *file) {
    sink_type sink = {NULL, NULL, MAX_FILE_BYTES, 0};
    int status;
    if ((sink.file = open_file(part)) == NULL)
        return fail(call->problem, SPINESCORE_FILE, "Check the folder and who may write there.",
                    "The file %.400s cannot be made.", part);
    status = get(call, path, &sink);
    if (fclose(sink.file) == 0 && status == SPINESCORE_OK && rename_file(part, file)) return SPINESCORE_OK;
    remove_file(part);
    if (status != SPINESCORE_OK) return status;
    return fail(call->problem, SPINESCORE_FILE, "Check the disk and the folder.", "The file %.400s cannot be written.",
                file);
}

int spinescore_fetch_to_file(spinescore_handle *handle, const char *path, const char *file,
                             spinescore_problem *problem) {
    spinescore_problem ours;
    call_type call;
    char part[1024];
    clear_problem(&ours);
    if (file == NULL || *file == 0 || strlen(file) + 6 > sizeof part || !is_result(path)) {
        (void)usage(&ours, "The file's name is missing or too long, or the path is not that of a result.");
        return finish(problem, &ours);
    }
    (void)snprintf(part, sizeof part, "%s.part", file);
    if (begin_call(&call, handle, &ours) == SPINESCORE_OK) (void)fetch_file(&call, path, part, file);
    end_call(&call);
    return finish(problem, &ours);
}

/* ---- Names ---- */

const char *spinescore_status_name(int status) {
    static const char *const names[] = {"ok",        "rejected",    "busy",      "refused",    "timeout",
                                        "cancelled", "unreachable", "closed",    "bad-answer", "too-large",
                                        "usage",     "in-use",      "no-memory", "file"};
    return status >= 0 && status <= SPINESCORE_FILE ? names[status] : "unknown";
}

const spinescore_code *spinescore_find_code(const char *name) {
    const spinescore_code *code;
    size_t i;
    for (i = 0; name != NULL && (code = spinescore_list_codes(i)) != NULL; i++)
        if (strcmp(code->name, name) == 0) return code;
    return NULL;
}
