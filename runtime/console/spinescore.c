/* spinescore.c: the calls of spinescore.h.

   In this order: the two platforms, problems and structs, the handle, the connection, answers, requests, calls.

   Every call opens a connection of its own and closes it at its end: a service that was restarted needs no care, and a
   connection that is closed early tells the service to drop the study. Sockets never block: waits are slices of 20 ms,
   between which the cancel flag and the clock are read. Nothing is allocated but the handle.

   HTTP/1.1 carries a study and its report as the structs below. They are little endian, every number lies at a multiple
   of its size, and they have no padding, so that they are the same in each compiler. Nothing of an answer is believed
   before it was checked. */
#if !defined(_WIN32) && !defined(_POSIX_C_SOURCE)
#define _POSIX_C_SOURCE 200809L
#endif
#if defined(__APPLE__) && !defined(_DARWIN_C_SOURCE)
#define _DARWIN_C_SOURCE
#endif
#if defined(_MSC_VER) && !defined(_CRT_SECURE_NO_WARNINGS)
#define _CRT_SECURE_NO_WARNINGS
#endif

#include "spinescore.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define REQUEST_TYPE "application/vnd.spinescore.request"
#define ANSWER_TYPE "application/vnd.spinescore.answer"
#define MAX_BODY_BYTES ((uint64_t)1 << 30)
enum { SLICE_MS = 20, CONTINUE_MS = 1000 };
enum { MAX_VIEWS = 4, MAX_STRUCT_BYTES = 65536 };
enum { IDLE = 0, RUNNING = 1, STOPPED = 2 }; /* states of a handle */
enum { CAN_READ = 1, CAN_WRITE = 2 };
enum { ANSWERED_EARLY = -1 }; /* beside the statuses: the service answered before it had everything */

/* The body of a request. After it come, view by view, the header and the pixels or the file. */
typedef struct {
    uint32_t rows, columns, bits_allocated, bits_stored; /* rows is 0: a DICOM file */
    double pixel_spacing_mm[2];
    uint64_t header_bytes, data_bytes;
    char photometric_interpretation[16], region[16], facing[16], study_instance_uid[72], sop_instance_uid[72];
} sent_view;
typedef struct {
    uint32_t struct_size, view_count, budget_ms, strict;
    char formats[112];
    sent_view views[MAX_VIEWS];
} sent_request;

/* The body of an answer. After it comes JSON. The problem is empty after a success, and the report if there is none.
   The report of a later service may be longer; its beginning is the same. */
typedef struct {
    spinescore_problem problem;
    spinescore_report report;
} sent_answer;

typedef char no_struct_has_padding[sizeof(sent_request) == 1088 && sizeof(sent_answer) == 10216 ? 1 : -1];
#if defined(__BYTE_ORDER__) && __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "spinescore needs a little-endian computer"
#endif

/* ---- The two platforms ---- */

#ifdef _WIN32

#include <winsock2.h>
#include <ws2tcpip.h>
#include <mstcpip.h>
#include <windows.h>
typedef SOCKET socket_type;
typedef int length_type;
#define NO_SOCKET INVALID_SOCKET

static int last_error(void) { return WSAGetLastError(); }
static int is_passing(int error) { return error == WSAEWOULDBLOCK || error == WSAEINPROGRESS || error == WSAEINTR; }
static void close_socket(socket_type one) { (void)closesocket(one); }
static int64_t now_ms(void) { return (int64_t)GetTickCount64(); }

/* Windows counts the programs and libraries that use its sockets. Returns 0 if they cannot be used. */
static int start_sockets(void) {
    WSADATA data;
    return WSAStartup(MAKEWORD(2, 2), &data) == 0;
}
static void stop_sockets(void) { (void)WSACleanup(); }

/* Replaces `from` with `to` in one step, and returns the value before. */
static long swap_state(volatile long *state, long from, long to) { return InterlockedCompareExchange(state, to, from); }

static void prepare_socket(socket_type one) {
    /* else Windows asks a port on which nothing listens three times, for about two seconds */
    TCP_INITIAL_RTO_PARAMETERS once = {TCP_INITIAL_RTO_UNSPECIFIED_RTT, TCP_INITIAL_RTO_NO_SYN_RETRANSMISSIONS};
    DWORD ignored = 0;
    u_long mode = 1;
    (void)WSAIoctl(one, SIO_TCP_INITIAL_RTO, &once, (DWORD)sizeof once, NULL, 0, &ignored, NULL, NULL);
    (void)ioctlsocket(one, (long)FIONBIO, &mode);
    (void)SetHandleInformation((HANDLE)one, HANDLE_FLAG_INHERIT, 0);
}

/* Waits for one slice. Returns the events for which the socket is ready; a failed one is ready for all of them.
   WSAPoll does not report a connection that failed on older Windows, select does. */
static int wait_slice(socket_type one, int events) {
    fd_set readable, writable, failed;
    struct timeval time = {0, SLICE_MS * 1000};
    FD_ZERO(&readable);
    FD_ZERO(&writable);
    FD_ZERO(&failed);
    if (events & CAN_READ) FD_SET(one, &readable);
    if (events & CAN_WRITE) FD_SET(one, &writable);
    FD_SET(one, &failed);
    if (select(0, &readable, &writable, &failed, &time) <= 0) return 0;
    if (FD_ISSET(one, &failed)) return events;
    return (FD_ISSET(one, &readable) ? CAN_READ : 0) | (FD_ISSET(one, &writable) ? CAN_WRITE : 0);
}

/* The functions of the C library take names in the code page of the computer, not in UTF-8. */
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

#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>
typedef int socket_type;
typedef size_t length_type;
#define NO_SOCKET (-1)

static int last_error(void) { return errno; }
static int is_passing(int error) {
    return error == EAGAIN || error == EWOULDBLOCK || error == EINPROGRESS || error == EINTR;
}
static void close_socket(socket_type one) { (void)close(one); }
static int start_sockets(void) { return 1; }
static void stop_sockets(void) {}
static long swap_state(volatile long *state, long from, long to) {
    return __sync_val_compare_and_swap(state, from, to);
}

static int64_t now_ms(void) {
    struct timespec now;
    (void)clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

static void prepare_socket(socket_type one) {
#ifdef SO_NOSIGPIPE
    int yes = 1;
    (void)setsockopt(one, SOL_SOCKET, SO_NOSIGPIPE, &yes, sizeof yes);
#endif
    (void)fcntl(one, F_SETFD, FD_CLOEXEC);
    (void)fcntl(one, F_SETFL, fcntl(one, F_GETFL) | O_NONBLOCK);
}

static int wait_slice(socket_type one, int events) {
    struct pollfd entry;
    entry.fd = one;
    entry.events = (short)((events & CAN_READ ? POLLIN : 0) | (events & CAN_WRITE ? POLLOUT : 0));
    entry.revents = 0;
    if (poll(&entry, 1, SLICE_MS) <= 0) return 0;
    if (entry.revents & (POLLERR | POLLHUP | POLLNVAL)) return events;
    return (entry.revents & POLLIN ? CAN_READ : 0) | (entry.revents & POLLOUT ? CAN_WRITE : 0);
}

static FILE *open_file(const char *name) { return fopen(name, "wb"); }
static int rename_file(const char *from, const char *to) { return rename(from, to) == 0; }
static void remove_file(const char *name) { (void)remove(name); }

#endif

#ifndef MSG_NOSIGNAL
#define MSG_NOSIGNAL 0 /* macOS has the socket option SO_NOSIGPIPE, and Windows no signal */
#endif

struct spinescore_handle {
    volatile long state;
    union {
        struct sockaddr any;
        struct sockaddr_in tcp;
#ifndef _WIN32
        struct sockaddr_un local;
#endif
    } target;
    socklen_t target_bytes;
    uint32_t connect_timeout_ms, send_timeout_ms, timeout_ms;
    char address[256], token[512];
    char head[8192];    /* of HTTP */
    char bytes[131072]; /* what was received, or rows of pixels, which have at most 65,535 columns */
};

/* One call in progress. `handle->bytes` between the two places was received and not yet read. */
typedef struct {
    spinescore_handle *handle;
    spinescore_problem *problem;
    socket_type socket;
    int64_t start_ms, end_ms; /* the latter of the step that is in progress */
    const char *step;
    size_t received_begin, received_end;
    int http_status, has_length, is_packed; /* of the answer; is_packed: its body is a sent_answer and JSON */
    uint64_t left;                          /* bytes of the body that were not yet read */
} call_type;

/* Where a body goes: to a buffer, to a file, or if it has neither, nowhere. */
typedef struct {
    char *buffer;
    uint64_t capacity, used;
    const char *name; /* of the file that a call makes when its body comes */
    FILE *file;
} sink_type;

/* ---- Problems and structs ---- */

/* Fills the problem with what happened here, and returns `status`. */
#ifdef __GNUC__
__attribute__((format(printf, 4, 5)))
#endif
static int fail(spinescore_problem *problem, int status, const char *next_step, const char *format, ...) {
    va_list values;
    problem->status = status;
    problem->code[0] = 0;
    va_start(values, format);
    (void)vsnprintf(problem->message, sizeof problem->message, format, values);
    va_end(values);
    (void)snprintf(problem->next_step, sizeof problem->next_step, "%s", next_step);
    return status;
}

static int usage(spinescore_problem *problem, const char *message) {
    return fail(problem, SPINESCORE_USAGE, "Correct the call.", "%s", message);
}

/* The commonest fault of a program: a struct that was not initialised. */
static int wrong_struct(spinescore_problem *problem, const char *name) {
    return fail(problem, SPINESCORE_USAGE, "Begin with SPINESCORE_..._INIT, and compile header and library together.",
                "%s is NULL, its struct_size was not set, or it uses a field that this library does not have.", name);
}

static void clear_problem(spinescore_problem *problem) {
    memset(problem, 0, sizeof *problem);
    problem->struct_size = (uint32_t)sizeof *problem;
    problem->retry_after_s = -1;
}

/* Whether a struct states a size that can be true: this is version 1, so none is shorter than ours. */
static int has_size(const void *theirs, size_t least_size) {
    uint32_t size;
    if (theirs == NULL) return 0;
    memcpy(&size, theirs, sizeof size);
    return size >= least_size && size <= MAX_STRUCT_BYTES;
}

/* Copies a struct of ours to one of the caller's, which may be newer and longer: then the rest becomes zero. */
static void give(void *theirs, const void *ours, size_t our_size) {
    uint32_t size;
    if (!has_size(theirs, our_size)) return;
    memcpy(&size, theirs, sizeof size);
    memset(theirs, 0, size);
    memcpy(theirs, ours, our_size);
    memcpy(theirs, &size, sizeof size);
}

/* Copies a struct of the caller's to ours. Returns 0 if its size is wrong, or if a field that is newer is set. */
static int take(void *ours, size_t our_size, const void *theirs) {
    uint32_t size, i;
    memset(ours, 0, our_size);
    if (!has_size(theirs, our_size)) return 0;
    memcpy(&size, theirs, sizeof size);
    for (i = (uint32_t)our_size; i < size; i++)
        if (((const char *)theirs)[i] != 0) return 0;
    memcpy(ours, theirs, our_size);
    return 1;
}

static int finish(spinescore_problem *theirs, const spinescore_problem *ours) {
    give(theirs, ours, sizeof *ours);
    return ours->status;
}

/* Whether a text has 1 to `most` characters of ASCII without a blank. */
static int is_printable(const char *text, size_t most) {
    size_t i;
    for (i = 0; i < most && text[i] > ' ' && text[i] <= '~'; i++) {}
    return i > 0 && text[i] == 0;
}

/* ---- The handle ---- */

/* Reads 127.a.b.c:PORT, localhost:PORT, or the path of a Unix socket, into a handle that is zero. */
static int set_address(spinescore_handle *handle, const char *address, spinescore_problem *problem) {
    unsigned b = 0, c = 0, d = 1, port = 0;
    int end = 0;
    if (address == NULL || *address == 0 || strlen(address) >= sizeof handle->address)
        return usage(problem, "options.address is missing or too long.");
    memcpy(handle->address, address, strlen(address));
    if (strpbrk(address, "/\\") != NULL) {
#ifdef _WIN32
        return usage(problem, "On Windows the service is reached at 127.0.0.1:PORT.");
#else
        if (strlen(address) >= sizeof handle->target.local.sun_path)
            return usage(problem, "The path of the Unix socket is too long.");
        memcpy(handle->target.local.sun_path, address, strlen(address));
        handle->target.local.sun_family = AF_UNIX;
        handle->target_bytes = (socklen_t)sizeof handle->target.local;
        return SPINESCORE_OK;
#endif
    }
    if ((sscanf(address, "localhost:%5u%n", &port, &end) != 1 &&
         sscanf(address, "127.%3u.%3u.%3u:%5u%n", &b, &c, &d, &port, &end) != 4) ||
        address[end] != 0 || b > 255 || c > 255 || d > 255 || port < 1 || port > 65535)
        return usage(problem, "options.address is neither the path of a Unix socket nor 127.0.0.1:PORT.");
    handle->target.tcp.sin_family = AF_INET;
    handle->target.tcp.sin_port = htons((unsigned short)port);
    handle->target.tcp.sin_addr.s_addr = htonl((uint32_t)127 << 24 | (uint32_t)b << 16 | (uint32_t)c << 8 | d);
    handle->target_bytes = (socklen_t)sizeof handle->target.tcp;
    return SPINESCORE_OK;
}

int spinescore_open(const spinescore_options *options, spinescore_handle **handle, spinescore_problem *problem) {
    spinescore_problem ours;
    spinescore_options taken;
    spinescore_handle *opened = NULL;
    clear_problem(&ours);
    if (handle != NULL) *handle = NULL;
    if (handle == NULL || !take(&taken, sizeof taken, options)) {
        (void)wrong_struct(&ours, "handle or options");
    } else if (taken.token != NULL && !is_printable(taken.token, sizeof opened->token - 1)) {
        (void)usage(&ours, "options.token is empty, too long, or has a blank or a character that is not ASCII.");
    } else if ((opened = (spinescore_handle *)calloc(1, sizeof *opened)) == NULL) {
        (void)fail(&ours, SPINESCORE_NO_MEMORY, "Free memory.", "There is no memory for the handle.");
    } else {
        if (taken.token != NULL) memcpy(opened->token, taken.token, strlen(taken.token));
        opened->connect_timeout_ms = taken.connect_timeout_ms != 0 ? taken.connect_timeout_ms : 2000;
        opened->send_timeout_ms = taken.send_timeout_ms != 0 ? taken.send_timeout_ms : 10000;
        opened->timeout_ms = taken.timeout_ms != 0 ? taken.timeout_ms : 60000;
        if (set_address(opened, taken.address, &ours) == SPINESCORE_OK && !start_sockets())
            (void)fail(&ours, SPINESCORE_NO_MEMORY, "Repair Windows Sockets.", "Windows Sockets cannot be used.");
        if (ours.status == SPINESCORE_OK)
            *handle = opened;
        else
            free(opened);
    }
    return finish(problem, &ours);
}

void spinescore_close(spinescore_handle *handle) {
    volatile char *place = (volatile char *)handle; /* so that no compiler leaves the loop out */
    size_t i;
    if (handle == NULL) return;
    for (i = 0; i < sizeof *handle; i++) place[i] = 0; /* the token, and the rest of the last study */
    stop_sockets();
    free(handle);
}

int spinescore_cancel(spinescore_handle *handle) {
    return handle != NULL && swap_state(&handle->state, RUNNING, STOPPED) == RUNNING;
}

/* ---- The connection ---- */

/* Begins a step that may last until `limit_ms` after the start of the call, and no longer than the whole call. */
static void begin_step(call_type *call, const char *step, uint64_t limit_ms) {
    call->step = step;
    if (limit_ms > call->handle->timeout_ms) limit_ms = call->handle->timeout_ms;
    call->end_ms = call->start_ms + (int64_t)limit_ms;
}

/* Waits until the socket can do one of the events, or until `pause_end_ms`; then `ready` is 0. */
static int wait_until(call_type *call, socket_type one, int events, int64_t pause_end_ms, int *ready) {
    do {
        if (swap_state(&call->handle->state, STOPPED, STOPPED) == STOPPED)
            return fail(call->problem, SPINESCORE_CANCELLED, "Nothing.", "The call was cancelled.");
        if (now_ms() >= call->end_ms)
            return fail(call->problem, SPINESCORE_TIMEOUT,
                        "Look whether the service runs, and at its load; or raise the time-out.",
                        "%s took longer than %ld ms.", call->step, (long)(call->end_ms - call->start_ms));
        *ready = wait_slice(one, events);
    } while (*ready == 0 && now_ms() < pause_end_ms);
    return SPINESCORE_OK;
}

static int wait_for(call_type *call, int events, int *ready) {
    return wait_until(call, call->socket, events, INT64_MAX, ready);
}

static int open_connection(call_type *call) {
    const spinescore_handle *handle = call->handle;
    const struct sockaddr *target = &handle->target.any;
    socklen_t size = sizeof(int);
    int error, yes = 1, ready, status;
    begin_step(call, "Connecting", handle->connect_timeout_ms);
    call->socket = socket(target->sa_family, SOCK_STREAM, 0);
    if (call->socket == NO_SOCKET)
        return fail(call->problem, SPINESCORE_NO_MEMORY, "Close files or connections.",
                    "There is no socket left (error %d).", last_error());
    prepare_socket(call->socket);
    if (target->sa_family == AF_INET)
        (void)setsockopt(call->socket, IPPROTO_TCP, TCP_NODELAY, (const char *)&yes, sizeof yes);
    while ((error = connect(call->socket, target, handle->target_bytes) == 0 ? 0 : last_error()) == EAGAIN &&
           target->sa_family != AF_INET) /* too many wait for a Unix socket: nothing is in progress, so pause */
        if ((status = wait_until(call, NO_SOCKET, 0, 0, &ready)) != SPINESCORE_OK) return status;
    if (is_passing(error)) {
        if ((status = wait_for(call, CAN_WRITE, &ready)) != SPINESCORE_OK) return status;
        if (getsockopt(call->socket, SOL_SOCKET, SO_ERROR, (char *)&error, &size) != 0) error = last_error();
    }
    if (error == 0) return SPINESCORE_OK;
    return fail(call->problem, SPINESCORE_UNREACHABLE,
                "Start the service (spinescore serve), and check the address and who may use it.",
                "There is no service at %s (error %d).", handle->address, error);
}

/* Sends all bytes. Returns ANSWERED_EARLY if the service closes or answers before it took everything. */
static int send_all(call_type *call, const void *data, size_t bytes) {
    const char *next = (const char *)data;
    while (bytes > 0) {
        int ready = 0, status = wait_for(call, CAN_READ | CAN_WRITE, &ready);
        long sent;
        if (status != SPINESCORE_OK) return status;
        if (ready & CAN_READ) return ANSWERED_EARLY;
        sent = (long)send(call->socket, next, (length_type)(bytes < 262144 ? bytes : 262144), MSG_NOSIGNAL);
        if (sent < 0 && !is_passing(last_error())) return ANSWERED_EARLY;
        next += sent > 0 ? sent : 0;
        bytes -= sent > 0 ? (size_t)sent : 0;
    }
    return SPINESCORE_OK;
}

/* Receives more bytes if none are left. */
static int receive(call_type *call) {
    while (call->received_begin == call->received_end) {
        int ready = 0, status = wait_for(call, CAN_READ, &ready);
        long count;
        if (status != SPINESCORE_OK) return status;
        count = (long)recv(call->socket, call->handle->bytes, (length_type)sizeof call->handle->bytes, 0);
        if (count == 0 || (count < 0 && !is_passing(last_error())))
            return fail(call->problem, SPINESCORE_CLOSED,
                        "Make the call again, and look at the log of the service if it happens again.",
                        "The service closed the connection before its answer was complete.");
        call->received_begin = 0;
        call->received_end = count > 0 ? (size_t)count : 0;
    }
    return SPINESCORE_OK;
}

/* ---- Answers ---- */

static int bad_answer(spinescore_problem *problem, const char *part) {
    return fail(problem, SPINESCORE_BAD_ANSWER,
                "Check that the address is that of a spinescore service, and its version.",
                "The answer's %s is missing or wrong.", part);
}

/* Takes what the library needs of a line of the head, which is in lower case. */
static int read_header(call_type *call, const char *line) {
    if (strncmp(line, "content-length: ", 16) == 0) {
        size_t digits = strspn(line + 16, "0123456789");
        if (digits == 0 || digits > 18 || line[16 + digits] != 0 || call->has_length)
            return bad_answer(call->problem, "Content-Length");
        call->left = strtoull(line + 16, NULL, 10);
        call->has_length = 1;
    }
    if (strncmp(line, "transfer-encoding:", 18) == 0) return bad_answer(call->problem, "Content-Length");
    if (strcmp(line, "content-type: " ANSWER_TYPE) == 0) call->is_packed = 1;
    return *line <= ' ' || strchr(line, ':') == NULL ? bad_answer(call->problem, "head") : SPINESCORE_OK;
}

/* Reads the head of the next answer, which may be an interim one such as 100 Continue. */
static int read_next_head(call_type *call) {
    char *head = call->handle->head, *line, *end;
    size_t used = 0;
    int status;
    while (used < 4 || memcmp(head + used - 4, "\r\n\r\n", 4) != 0) {
        char c;
        if ((status = receive(call)) != SPINESCORE_OK) return status;
        c = call->handle->bytes[call->received_begin++];
        if (c == 0 || used + 1 == sizeof call->handle->head) return bad_answer(call->problem, "head");
        head[used++] = c >= 'A' && c <= 'Z' ? (char)(c + 32) : c;
    }
    head[used - 2] = 0;
    call->has_length = call->is_packed = 0;
    if (strncmp(head, "http/1.", 7) != 0 || strspn(head + 9, "0123456789") != 3 || head[8] != ' ' ||
        head[9] < '1' || head[9] > '5' || (head[12] != ' ' && head[12] != '\r'))
        return bad_answer(call->problem, "head");
    call->http_status = (int)strtol(head + 9, NULL, 10);
    for (line = strstr(head, "\r\n") + 2; *line != 0; line = end + 2) {
        end = strstr(line, "\r\n");
        *end = 0;
        if ((status = read_header(call, line)) != SPINESCORE_OK) return status;
    }
    return SPINESCORE_OK;
}

/* Waits until the service wants the body: it says 100 Continue, or nothing for a second.
   A service that refuses the study answers before the body comes, and closes the connection. Bytes of a body that
   arrive then would make Windows discard the answer. Returns ANSWERED_EARLY if that answer is here. */
static int await_continue(call_type *call) {
    int ready = 0, status = wait_until(call, call->socket, CAN_READ, now_ms() + CONTINUE_MS, &ready);
    if (status != SPINESCORE_OK || !ready) return status;
    if ((status = read_next_head(call)) != SPINESCORE_OK) return status;
    return call->http_status == 100 && call->received_begin == call->received_end ? SPINESCORE_OK : ANSWERED_EARLY;
}

/* Moves the next bytes of the body to the sink. */
static int read_body(call_type *call, sink_type *sink, uint64_t bytes) {
    if (!call->has_length) return bad_answer(call->problem, "Content-Length");
    if (bytes > call->left) return bad_answer(call->problem, "report");
    if (bytes > sink->capacity - sink->used)
        return fail(call->problem, SPINESCORE_TOO_LARGE, "Give a larger buffer.",
                    "The answer is larger than the buffer of %lu bytes.", (unsigned long)sink->capacity);
    while (bytes > 0) {
        int status = receive(call);
        size_t part = call->received_end - call->received_begin;
        const char *data = call->handle->bytes + call->received_begin;
        if (status != SPINESCORE_OK) return status;
        if (part > bytes) part = (size_t)bytes;
        if (sink->buffer != NULL) memcpy(sink->buffer + sink->used, data, part);
        if (sink->file != NULL && fwrite(data, 1, part, sink->file) != part)
            return fail(call->problem, SPINESCORE_FILE, "Free space on the disk.",
                        "The result's file cannot be written.");
        sink->used += part;
        call->received_begin += part;
        call->left -= part;
        bytes -= part;
    }
    return SPINESCORE_OK;
}

/* Moves the next bytes of the body to a struct. */
static int read_struct(call_type *call, void *place, size_t bytes) {
    sink_type sink = {(char *)place, bytes, 0, NULL, NULL};
    return read_body(call, &sink, bytes);
}

/* Reads the head of the answer, unless it has come, and its problem, whose status is then that of the call. */
static int read_answer(call_type *call) {
    spinescore_problem told;
    int status, http;
    clear_problem(&told);
    begin_step(call, "The call", UINT64_MAX);
    while (call->http_status < 200) /* interim answers are passed over */
        if ((status = read_next_head(call)) != SPINESCORE_OK) return status;
    http = call->http_status;
    if (call->is_packed && (status = read_struct(call, &told, sizeof told)) != SPINESCORE_OK) return status;
    if (told.struct_size != sizeof told) return bad_answer(call->problem, "problem");
    told.code[sizeof told.code - 1] = told.message[sizeof told.message - 1] = 0;
    told.next_step[sizeof told.next_step - 1] = 0;
    if (http == 200)
        clear_problem(&told);
    else if (told.message[0] == 0) /* of a proxy, or of a service that is too busy to say more */
        (void)fail(&told, 0, http == 503 ? "Try again later." : "Look at the log of the service.",
                   "The service answered with the HTTP status %d.", http);
    told.status = http == 200                  ? SPINESCORE_OK
                  : http == 422                ? SPINESCORE_REJECTED
                  : http == 429 || http == 503 ? SPINESCORE_BUSY
                  : http == 408 || http == 504 ? SPINESCORE_TIMEOUT
                  : http < 400                 ? SPINESCORE_BAD_ANSWER
                                               : SPINESCORE_REFUSED;
    told.http_status = http;
    *call->problem = told;
    return SPINESCORE_OK;
}

/* These are false for what is no number. */
static int is_within(double value, double low, double high) { return value >= low && value <= high; }
static int is_none_or_within(double value, double high) { return value == -1 || is_within(value, 0, high); }
static int is_range(const int32_t range[2], int32_t most) {
    return 0 <= range[0] && range[0] <= range[1] && range[1] <= most;
}
#define IS_WORD(array) is_printable(array, sizeof(array) - 1)

static int is_corner(const spinescore_corner *corner) {
    int i, count = 0;
    for (i = 0; i < 4; i++) count += is_within(corner->probabilities[i], 0, 1) - (corner->probabilities[i] == -1);
    return IS_WORD(corner->site) && is_within(corner->status, 0, SPINESCORE_CORNER_IMPUTED) &&
           is_within(corner->grade, -1, 3) && (corner->status == SPINESCORE_CORNER_SCORED) == (corner->grade >= 0) &&
           is_none_or_within(corner->imputed, 3) && (count == 4 || count == -4);
}

static int is_disc(const spinescore_disc *disc) {
    int i, count = 0;
    for (i = 0; i < 2; i++)
        count += is_within(disc->centre_px[i], -1e6, 1e6) && is_within(disc->anterior_px[i], -1e6, 1e6) &&
                 is_corner(&disc->corners[i]);
    return count == 2 && IS_WORD(disc->level) && is_within(disc->confidence, 0, 1) &&
           is_within(disc->rotation_deg, -180, 180) && is_none_or_within(disc->total, 6);
}

static int is_region(const spinescore_region *region) {
    uint32_t i, count = region->status == SPINESCORE_REGION_SCORED ? 6 : 0;
    for (i = 0; i < count; i++)
        if (!is_disc(&region->discs[i])) return 0;
    return region->disc_count == count && is_within(region->status, 0, SPINESCORE_REGION_MISSING) &&
           is_within(region->missing, 0, 12) && is_none_or_within(region->total, 36) && is_range(region->range, 36) &&
           (region->reject_code[0] == 0 || IS_WORD(region->reject_code));
}

static int are_findings(const spinescore_finding *findings, uint32_t count, uint32_t most) {
    uint32_t i;
    for (i = 0; i < count && i < most; i++)
        if (!IS_WORD(findings[i].code) || !is_within(findings[i].region, -1, SPINESCORE_LUMBAR)) return 0;
    return 1;
}

static int are_results(const spinescore_result *results, uint32_t count) {
    uint32_t i;
    for (i = 0; i < count && i < 16; i++)
        if (!IS_WORD(results[i].format) || !IS_WORD(results[i].path)) return 0;
    return count <= 16;
}

/* Checks a report that came as bytes. */
static int check_report(const spinescore_report *report, spinescore_problem *problem) {
    if (!has_size(report, sizeof *report) || memchr(report->study_instance_uid, 0, sizeof report->study_instance_uid) == NULL)
        return bad_answer(problem, "report");
    if (!is_within(report->total_status, 0, SPINESCORE_TOTAL_INCOMPLETE) || !is_none_or_within(report->total, 72) ||
        !is_range(report->range, 72))
        return bad_answer(problem, "total");
    if (!is_within(report->within_budget, -1, 1) || !is_none_or_within(report->elapsed_ms, 1e12))
        return bad_answer(problem, "time");
    if (!is_region(&report->regions[0]) || !is_region(&report->regions[1])) return bad_answer(problem, "region");
    if (!are_findings(report->warnings, report->warning_count, 32) ||
        !are_findings(report->rejects, report->reject_count, 16))
        return bad_answer(problem, "finding");
    return are_results(report->results, report->result_count) ? SPINESCORE_OK : bad_answer(problem, "list of results");
}

/* ---- Requests ---- */

static size_t row_bytes(const spinescore_view *view) { return (size_t)view->columns * (view->bits_allocated / 8); }

/* Sends the rows of a view without their padding: all at once if they have none, else through a buffer. */
static int send_rows(call_type *call, const spinescore_view *view) {
    const char *row = (const char *)view->data;
    char *buffer = call->handle->bytes;
    size_t bytes = row_bytes(view), used = 0, i;
    int status;
    if (view->row_stride_bytes == bytes) return send_all(call, row, bytes * view->rows);
    for (i = 0; i < view->rows; i++, used += bytes) {
        if (used + bytes > sizeof call->handle->bytes) {
            if ((status = send_all(call, buffer, used)) != SPINESCORE_OK) return status;
            used = 0;
        }
        memcpy(buffer + used, row + i * view->row_stride_bytes, bytes);
    }
    return send_all(call, buffer, used);
}

/* Sends the head of a request; `more` are further lines of it. */
static int send_head(call_type *call, const char *begin, const char *path, const char *more) {
    spinescore_handle *handle = call->handle;
    int has_token = handle->token[0] != 0;
    int bytes = snprintf(handle->head, sizeof handle->head,
                         "%s %s HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nAccept: " ANSWER_TYPE
                         "\r\n%s%s%s%s\r\n",
                         begin, path, has_token ? "Authorization: Bearer " : "", handle->token,
                         has_token ? "\r\n" : "", more);
    begin_step(call, "Sending the study", (uint64_t)handle->connect_timeout_ms + handle->send_timeout_ms);
    return send_all(call, handle->head, (size_t)bytes);
}

static int send_study(call_type *call, const sent_request *request, const spinescore_view *views) {
    char more[160];
    uint64_t bytes = sizeof *request;
    uint32_t i;
    int status;
    for (i = 0; i < request->view_count; i++) bytes += request->views[i].header_bytes + request->views[i].data_bytes;
    if (bytes > UINT32_MAX) return usage(call->problem, "The views have more than 4 GB.");
    (void)snprintf(more, sizeof more,
                   "Content-Type: " REQUEST_TYPE "\r\nExpect: 100-continue\r\nContent-Length: %lu\r\n",
                   (unsigned long)bytes);
    status = send_head(call, "POST", "/v1/score", more);
    if (status == SPINESCORE_OK) status = await_continue(call);
    if (status == SPINESCORE_OK) status = send_all(call, request, sizeof *request);
    for (i = 0; status == SPINESCORE_OK && i < request->view_count; i++) {
        status = send_all(call, views[i].header, views[i].header_bytes);
        if (status == SPINESCORE_OK)
            status = views[i].rows == 0 ? send_all(call, views[i].data, views[i].data_bytes)
                                        : send_rows(call, &views[i]);
    }
    return status;
}

static int is_sound(const spinescore_view *view) {
    size_t bytes = row_bytes(view);
    const double *mm = view->pixel_spacing_mm;
    if (view->data == NULL || view->data_bytes == 0) return 0;
    if ((view->header != NULL) != (view->header_bytes != 0)) return 0;
    if (view->rows == 0) return view->header == NULL;
    if (view->rows > 65535 || view->columns == 0 || view->columns > 65535) return 0;
    if ((view->bits_allocated != 8 && view->bits_allocated != 16) || view->bits_stored > view->bits_allocated) return 0;
    if (!is_within(mm[0], 0, 1000) || !is_within(mm[1], 0, 1000) || (mm[0] > 0) != (mm[1] > 0)) return 0;
    if (view->row_stride_bytes < bytes || view->data_bytes < bytes) return 0;
    return view->rows - 1 <= (view->data_bytes - bytes) / view->row_stride_bytes; /* the last row needs no padding */
}

/* Copies a text into an array that is zero. Returns 0 if it is too long. */
static int copy_text(char *out, size_t capacity, const char *text) {
    size_t length = text == NULL ? 0 : strlen(text);
    if (length >= capacity) return 0;
    if (length > 0) memcpy(out, text, length);
    return 1;
}
#define COPY(field) copy_text(sent->field, sizeof sent->field, view->field)

static int pack_view(const spinescore_view *view, sent_view *sent) {
    sent->rows = view->rows;
    sent->columns = view->columns;
    sent->bits_allocated = view->bits_allocated;
    sent->bits_stored = view->bits_stored;
    memcpy(sent->pixel_spacing_mm, view->pixel_spacing_mm, sizeof sent->pixel_spacing_mm);
    sent->header_bytes = view->header_bytes;
    sent->data_bytes = view->rows == 0 ? view->data_bytes : row_bytes(view) * view->rows;
    return COPY(photometric_interpretation) && COPY(region) && COPY(facing) && COPY(study_instance_uid) &&
           COPY(sop_instance_uid);
}

/* Checks a request and its views, whose structs may be newer and longer, and makes of them what is sent. */
static int pack_request(const spinescore_request *request, spinescore_view views[MAX_VIEWS], sent_request *sent,
                        spinescore_problem *problem) {
    const char *next = (const char *)request->views;
    uint32_t i;
    memset(sent, 0, sizeof *sent);
    sent->struct_size = (uint32_t)sizeof *sent;
    sent->view_count = request->view_count;
    sent->budget_ms = request->budget_ms;
    sent->strict = request->strict != 0;
    if (!copy_text(sent->formats, sizeof sent->formats, request->formats) ||
        sent->formats[strspn(sent->formats, "abcdefghijklmnopqrstuvwxyz-,")] != 0)
        return usage(problem, "request.formats is no list such as sr,gsps.");
    if (request->answer != NULL && request->answer_capacity == 0)
        return usage(problem, "request.answer_capacity is 0.");
    if (next == NULL || request->view_count < 1 || request->view_count > MAX_VIEWS)
        return usage(problem, "A study has 1 to 4 views.");
    for (i = 0; i < request->view_count; i++, next += request->views->struct_size) {
        if (!take(&views[i], sizeof views[i], next)) return wrong_struct(problem, "request.views");
        if (views[i].row_stride_bytes == 0) views[i].row_stride_bytes = row_bytes(&views[i]);
        if (!is_sound(&views[i]))
            return usage(problem, "A view's rows, columns, bits, stride, spacing, data, header do not fit together.");
        if (!pack_view(&views[i], &sent->views[i])) return usage(problem, "A text of a view is too long.");
    }
    return SPINESCORE_OK;
}

/* ---- Calls ---- */

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
    return open_connection(call);
}

static void end_call(call_type *call) {
    if (call->socket != NO_SOCKET) close_socket(call->socket);
    if (call->handle == NULL) return;
    if (swap_state(&call->handle->state, RUNNING, IDLE) == STOPPED)
        (void)swap_state(&call->handle->state, STOPPED, IDLE);
}

/* Reads the answer to a study: its problem, its report, which is left zero if there is none, and its JSON. */
static int read_score(call_type *call, const spinescore_request *request, spinescore_report *report) {
    sink_type nowhere = {NULL, MAX_STRUCT_BYTES, 0, NULL, NULL};
    sink_type sink = {request->answer, MAX_BODY_BYTES, 0, NULL, NULL};
    spinescore_problem told;
    uint64_t json_bytes;
    int status = read_answer(call);
    if (status != SPINESCORE_OK) return status;
    told = *call->problem;
    if (call->is_packed) status = read_struct(call, report, sizeof *report);
    if (status == SPINESCORE_OK && (report->struct_size != 0 || told.status == SPINESCORE_OK) &&
        (status = check_report(report, call->problem)) == SPINESCORE_OK)
        status = read_body(call, &nowhere, report->struct_size - sizeof *report);
    json_bytes = call->left;
    if (request->answer != NULL) sink.capacity = request->answer_capacity - 1; /* for the NUL */
    if (status == SPINESCORE_OK) status = read_body(call, &sink, call->left);
    if (request->answer != NULL) request->answer[sink.used] = 0;
    if (status != SPINESCORE_OK) memset(report, 0, sizeof *report);
    report->answer_bytes = json_bytes;
    if (told.status == SPINESCORE_OK || status == SPINESCORE_CANCELLED || status == SPINESCORE_TIMEOUT) return status;
    *call->problem = told; /* whatever became of the rest */
    return told.status;
}

int spinescore_score(spinescore_handle *handle, const spinescore_request *request, spinescore_report *report,
                     spinescore_problem *problem) {
    spinescore_problem ours;
    spinescore_report full;
    spinescore_request taken;
    spinescore_view views[MAX_VIEWS];
    sent_request sent;
    call_type call;
    int status;
    clear_problem(&ours);
    memset(&full, 0, sizeof full);
    if (!take(&taken, sizeof taken, request)) {
        (void)wrong_struct(&ours, "request");
    } else if (!has_size(report, sizeof full)) {
        (void)wrong_struct(&ours, "report");
    } else if (pack_request(&taken, views, &sent, &ours) == SPINESCORE_OK) {
        if (taken.answer != NULL) taken.answer[0] = 0;
        status = begin_call(&call, handle, &ours);
        if (status == SPINESCORE_OK) status = send_study(&call, &sent, views);
        if (status <= SPINESCORE_OK) (void)read_score(&call, &taken, &full);
        end_call(&call);
    }
    give(report, &full, sizeof full);
    return finish(problem, &ours);
}

int spinescore_parse(const void *kept, size_t bytes, spinescore_report *report, spinescore_problem *problem) {
    spinescore_problem ours;
    spinescore_report full;
    clear_problem(&ours);
    memset(&full, 0, sizeof full);
    if (kept == NULL)
        (void)usage(&ours, "The kept report is NULL.");
    else if (!has_size(report, sizeof full))
        (void)wrong_struct(&ours, "report");
    else if (bytes >= sizeof full)
        memcpy(&full, kept, sizeof full);
    if (ours.status == SPINESCORE_OK && check_report(&full, &ours) != SPINESCORE_OK) memset(&full, 0, sizeof full);
    give(report, &full, sizeof full);
    return finish(problem, &ours);
}

/* Makes a whole call that asks for a path. The body of the answer goes to the sink if it is a success. */
static int get(spinescore_handle *handle, const char *path, sink_type *sink, spinescore_problem *problem) {
    call_type call;
    int status = begin_call(&call, handle, problem);
    if (status == SPINESCORE_OK) status = send_head(&call, "GET", path, "");
    if (status <= SPINESCORE_OK) {
        (void)read_answer(&call);
        status = problem->status;
    }
    if (status == SPINESCORE_OK && sink->name != NULL && (sink->file = open_file(sink->name)) == NULL)
        status = fail(problem, SPINESCORE_FILE, "Check the folder and who may write there.",
                      "The file %.400s cannot be made.", sink->name);
    if (status == SPINESCORE_OK) status = read_body(&call, sink, call.left);
    if (status == SPINESCORE_TOO_LARGE) sink->used = call.left;
    end_call(&call);
    return status;
}

int spinescore_ready(spinescore_handle *handle, spinescore_problem *problem) {
    spinescore_problem ours;
    sink_type nowhere = {NULL, MAX_BODY_BYTES, 0, NULL, NULL};
    clear_problem(&ours);
    (void)get(handle, "/health/ready", &nowhere, &ours);
    return finish(problem, &ours);
}

/* Whether a path is one of a result, without a character that ends a line or a word of the request's head. */
static int is_result(const char *path) {
    return path != NULL && strncmp(path, "/v1/results/", 12) == 0 && is_printable(path, 1023);
}

int spinescore_fetch(spinescore_handle *handle, const char *path, void *buffer, size_t capacity, size_t *bytes,
                     spinescore_problem *problem) {
    spinescore_problem ours;
    sink_type sink = {(char *)buffer, capacity, 0, NULL, NULL};
    clear_problem(&ours);
    if (bytes != NULL) *bytes = 0;
    if (buffer == NULL || bytes == NULL || !is_result(path)) {
        (void)usage(&ours, "The buffer or its size is missing, or the path is not that of a result.");
    } else {
        (void)get(handle, path, &sink, &ours);
        if (ours.status == SPINESCORE_OK || ours.status == SPINESCORE_TOO_LARGE) *bytes = (size_t)sink.used;
    }
    return finish(problem, &ours);
}

int spinescore_fetch_to_file(spinescore_handle *handle, const char *path, const char *file,
                             spinescore_problem *problem) {
    spinescore_problem ours;
    char part[1024];
    sink_type sink = {NULL, MAX_BODY_BYTES, 0, part, NULL};
    clear_problem(&ours);
    if (file == NULL || *file == 0 || strlen(file) + 6 > sizeof part || !is_result(path)) {
        (void)usage(&ours, "The file's name is missing or too long, or the path is not that of a result.");
    } else {
        (void)snprintf(part, sizeof part, "%s.part", file);
        (void)get(handle, path, &sink, &ours);
    }
    if (sink.file != NULL) {
        int is_whole = fclose(sink.file) == 0 && ours.status == SPINESCORE_OK && rename_file(part, file);
        if (!is_whole) remove_file(part);
        if (!is_whole && ours.status == SPINESCORE_OK)
            (void)fail(&ours, SPINESCORE_FILE, "Check the disk and the folder.",
                       "The file %.400s cannot be written.", file);
    }
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
