/* spinescore.c: the calls of spinescore.h.

   In this order: the structs that travel, the two platforms, problems, the caller's structs, the
   handle, the connection, answers, studies, calls.

   A call opens a connection of its own and closes it at its end: a service that was restarted
   needs no care, and a connection that is closed early tells the service to drop the study.
   Sockets never block. A call waits in slices of 20 ms, between which it looks at the cancel flag
   and the clock. After a step has failed, the other steps of the call do nothing.

   HTTP/1.1 carries the structs below. They are little endian, every number lies at a multiple of
   its size, and they have no padding, so that they are the same in each compiler. Nothing of an
   answer is believed before it was checked. */
#if defined(__linux__) && !defined(_POSIX_C_SOURCE)
#define _POSIX_C_SOURCE 200809L /* which C99 alone hides */
#endif

#include "spinescore.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { SLICE_MS = 20, CONTINUE_MS = 1000, MAX_VIEWS = 4, MAX_STRUCT_BYTES = 65536 };
enum { IDLE, RUNNING, STOPPED }; /* states of a handle */

/* ---- The structs that travel ---- */

/* A service of another version of these structs knows other types, and says so. */
#define VERSION "2"
#define REQUEST_TYPE "application/vnd.spinescore.request-" VERSION
#define ANSWER_TYPE "application/vnd.spinescore.answer-" VERSION
#define NO_STRUCTS "without version " VERSION " of the library's structs."
#define MAX_RESULT_BYTES ((uint64_t)1 << 30)

/* The body of a request. After it come, view by view, the header and the data. */
typedef struct {
    uint32_t rows, columns, bits_allocated, bits_stored; /* rows is 0: a DICOM file */
    double pixel_spacing_mm[2];
    uint64_t header_bytes, data_bytes, row_stride_bytes;
    char photometric_interpretation[16], region[16], facing[16];
    char study_instance_uid[72], sop_instance_uid[72];
} sent_view;
typedef struct {
    uint32_t struct_size, view_count, budget_ms, strict;
    char formats[112];
    sent_view views[MAX_VIEWS];
} sent_request;

/* The body of an answer. After it come report.answer_bytes of JSON, or of a result. The problem is
   empty after a success, and all else in the report is 0 if there is none. */
typedef struct {
    spinescore_problem problem;
    spinescore_report report;
} sent_answer;

typedef char has_no_padding[sizeof(sent_request) == 1120 && sizeof(sent_answer) == 10216 ? 1 : -1];
#if defined(__BYTE_ORDER__) && __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "spinescore needs a little-endian computer"
#endif

/* ---- The two platforms ---- */

#ifdef _WIN32

#include <winsock2.h>
#include <ws2tcpip.h>
#include <mstcpip.h>
typedef SOCKET socket_type;
typedef int length_type;
#define NO_SOCKET INVALID_SOCKET
#define MSG_NOSIGNAL 0
#define poll WSAPoll
#define close closesocket
#define swap_state(state, from, to) InterlockedCompareExchange(state, to, from)

static int last_error(void) { return WSAGetLastError(); }
static int is_passing(int error) { return error == WSAEWOULDBLOCK || error == WSAEINTR; }
static int64_t now_ms(void) { return (int64_t)GetTickCount64(); }
static void stop_sockets(void) { WSACleanup(); }
static int start_sockets(void) {
    WSADATA data;
    return WSAStartup(MAKEWORD(2, 2), &data) == 0;
}

/* Connects to this computer, which takes no time, and only then stops blocking: WSAPoll of older
   Windows does not see that a connection failed. Without the option, Windows asks a port on which
   nothing listens three times, for about two seconds. */
static int start_connecting(socket_type one, const struct sockaddr *target, socklen_t size) {
    TCP_INITIAL_RTO_PARAMETERS once = {TCP_INITIAL_RTO_UNSPECIFIED_RTT,
                                       TCP_INITIAL_RTO_NO_SYN_RETRANSMISSIONS};
    DWORD ignored = 0;
    u_long yes = 1;
    SetHandleInformation((HANDLE)one, HANDLE_FLAG_INHERIT, 0);
    WSAIoctl(one, SIO_TCP_INITIAL_RTO, &once, sizeof once, NULL, 0, &ignored, NULL, NULL);
    if (connect(one, target, size) != 0) return last_error();
    return ioctlsocket(one, (long)FIONBIO, &yes) == 0 ? 0 : last_error();
}

/* The functions of C take names in the code page of the computer, not in UTF-8. */
static wchar_t *to_wide(const char *name, wchar_t wide[1024]) {
    if (MultiByteToWideChar(CP_UTF8, MB_ERR_INVALID_CHARS, name, -1, wide, 1024) == 0) *wide = 0;
    return wide;
}
static FILE *make_file(const char *name) {
    wchar_t wide[1024];
    FILE *file = NULL;
    return _wfopen_s(&file, to_wide(name, wide), L"wb") == 0 ? file : NULL;
}
static int rename_file(const char *from, const char *to) {
    wchar_t source[1024], target[1024];
    return MoveFileExW(to_wide(from, source), to_wide(to, target), MOVEFILE_REPLACE_EXISTING);
}
static void remove_file(const char *name) {
    wchar_t wide[1024];
    DeleteFileW(to_wide(name, wide));
}

#else

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
#define swap_state __sync_val_compare_and_swap

static int last_error(void) { return errno; }
static int is_passing(int error) {
    return error == EAGAIN || error == EINPROGRESS || error == EINTR;
}
static int64_t now_ms(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}
static void stop_sockets(void) {}
static int start_sockets(void) { return 1; }

static int start_connecting(socket_type one, const struct sockaddr *target, socklen_t size) {
#ifndef MSG_NOSIGNAL
#define MSG_NOSIGNAL 0 /* macOS */
    int yes = 1;
    setsockopt(one, SOL_SOCKET, SO_NOSIGPIPE, &yes, sizeof yes);
#endif
    fcntl(one, F_SETFD, FD_CLOEXEC);
    fcntl(one, F_SETFL, fcntl(one, F_GETFL) | O_NONBLOCK);
    return connect(one, target, size) == 0 ? 0 : errno;
}

static FILE *make_file(const char *name) { return fopen(name, "wb"); }
static int rename_file(const char *from, const char *to) { return rename(from, to) == 0; }
static void remove_file(const char *name) { remove(name); }

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
    socklen_t target_size;
    uint32_t connect_timeout_ms, send_timeout_ms, timeout_ms;
    char address[104], token[512]; /* a Unix socket's path has 104 bytes or more */
    char head[8192];               /* of HTTP */
    char received[65536];
};

/* One call in progress. */
typedef struct {
    spinescore_problem problem; /* its status is not SPINESCORE_OK after a step has failed */
    spinescore_handle *handle;
    socket_type socket;
    int64_t start_ms, end_ms; /* the latter of the step that is in progress */
    const char *step;
    size_t received_begin, received_end; /* of handle->received, which were not yet read */
    int is_answered;                     /* the service answers or closes: nothing more is sent */
    int http_status;
    sent_answer answer;
} call_type;

/* ---- Problems ---- */

/* By status: its name, and the next step if the service did not name one. */
static const struct {
    const char *name, *next_step;
} STATUSES[] = {
    {"ok", ""},
    {"rejected", "Look at the log of the service."},
    {"busy", "Try again later."},
    {"refused", "Look at the log of the service, and whether it is of the library's release."},
    {"timeout", "Look whether the service runs, and at its load; or raise the time-out."},
    {"cancelled", "Nothing."},
    {"unreachable", "Start the service (spinescore serve), and check the address and its rights."},
    {"closed", "Make the call again, and look at the service's log if it happens again."},
    {"bad-answer", "Check the address, and whether the service is of the library's release."},
    {"too-large", "Give a larger buffer."},
    {"usage", "Correct the call."},
    {"in-use", "Open a handle for each thread."},
    {"no-memory", "Free memory, or close files and connections."},
    {"file", "Check the disk, the folder, and who may write there."},
};

const char *spinescore_status_name(int status) {
    return status >= 0 && status <= SPINESCORE_FILE ? STATUSES[status].name : "unknown";
}

static int has_failed(const call_type *call) { return call->problem.status != SPINESCORE_OK; }

/* Keeps what happened first. Returns 0. */
#ifdef __GNUC__
__attribute__((format(printf, 3, 4)))
#endif
static int fail(call_type *call, int status, const char *format, ...) {
    spinescore_problem *problem = &call->problem;
    va_list values;
    if (has_failed(call)) return 0;
    problem->status = status;
    va_start(values, format);
    vsnprintf(problem->message, sizeof problem->message, format, values);
    va_end(values);
    snprintf(problem->next_step, sizeof problem->next_step, "%s", STATUSES[status].next_step);
    return 0;
}

static int usage(call_type *call, const char *message) {
    return fail(call, SPINESCORE_USAGE, "%s", message);
}

/* ---- The caller's structs ---- */

/* Returns the size that a struct states; 0 if it cannot be true. A program that was compiled with
   a later header has longer structs. */
static uint32_t size_of(const void *theirs, size_t least_size) {
    uint32_t size = 0;
    if (theirs != NULL) memcpy(&size, theirs, sizeof size);
    return size >= least_size && size <= MAX_STRUCT_BYTES ? size : 0;
}

/* Copies a struct of ours to one of the caller's; the rest of a longer one becomes zero. */
static void give(void *theirs, const void *ours, size_t our_size) {
    uint32_t size = size_of(theirs, our_size);
    if (size == 0) return;
    memset(theirs, 0, size);
    memcpy(theirs, ours, our_size);
    memcpy(theirs, &size, sizeof size);
}

/* Copies a struct of the caller's to ours. Fails if its size is wrong or a newer field is set. */
static int take(call_type *call, void *ours, size_t our_size, const void *theirs) {
    uint32_t size = size_of(theirs, our_size), i = (uint32_t)our_size;
    while (i < size && ((const char *)theirs)[i] == 0)
        i++;
    if (i != size)
        return usage(call, "A struct is NULL, does not begin with SPINESCORE_..._INIT, or uses a "
                           "newer field; compile header and library together.");
    memcpy(ours, theirs, our_size);
    return !has_failed(call);
}

/* Copies a text to an array that is zero. Returns 0 if it is too long. */
static int copy_text(char *out, size_t capacity, const char *text) {
    size_t length = text == NULL ? 0 : strlen(text);
    if (length < capacity && length > 0) memcpy(out, text, length);
    return length < capacity;
}

/* Whether a text that ends within the capacity is printable ASCII without a blank. */
static int is_word(const char *text, size_t capacity) {
    size_t length = 0;
    while (length < capacity && text[length] > ' ' && text[length] <= '~')
        length++;
    return length > 0 && length < capacity && text[length] == 0;
}
#define IS_WORD(array) is_word(array, sizeof(array))

/* ---- The handle ---- */

/* Begins a call, which may need no handle. end_call must follow. */
static void begin_call(call_type *call) {
    memset(call, 0, sizeof *call);
    call->problem.struct_size = (uint32_t)sizeof call->problem;
    call->problem.retry_after_s = -1;
    call->socket = NO_SOCKET;
}

static void take_handle(call_type *call, spinescore_handle *handle) {
    begin_call(call);
    if (handle == NULL)
        usage(call, "The handle is NULL.");
    else if (swap_state(&handle->state, IDLE, RUNNING) == IDLE)
        call->handle = handle;
    else
        fail(call, SPINESCORE_IN_USE, "Another thread makes a call with this handle.");
    call->start_ms = now_ms();
}

static int end_call(call_type *call, spinescore_problem *problem) {
    if (call->socket != NO_SOCKET) close(call->socket);
    if (call->handle != NULL && swap_state(&call->handle->state, RUNNING, IDLE) == STOPPED)
        swap_state(&call->handle->state, STOPPED, IDLE);
    give(problem, &call->problem, sizeof call->problem);
    return call->problem.status;
}

/* Reads 127.0.0.1:PORT, or the path of a Unix socket. */
static int set_address(call_type *call, spinescore_handle *handle, const char *address) {
    char *end = NULL;
    unsigned long port = 0;
    if (address == NULL || !copy_text(handle->address, sizeof handle->address, address))
        return usage(call, "options.address is missing or too long.");
#ifndef _WIN32
    if (strchr(address, '/') != NULL) {
        handle->target_size = (socklen_t)sizeof handle->target.local;
        handle->target.local.sun_family = AF_UNIX;
        memcpy(handle->target.local.sun_path, handle->address, sizeof handle->address);
        return 1;
    }
#endif
    if (strncmp(address, "127.0.0.1:", 10) == 0 && address[10] >= '1' && address[10] <= '9')
        port = strtoul(address + 10, &end, 10);
    if (port < 1 || port > 65535 || *end != 0)
        return usage(call, "options.address is not 127.0.0.1:PORT, nor the path of a Unix socket, "
                           "which Windows does not take.");
    handle->target_size = (socklen_t)sizeof handle->target.tcp;
    handle->target.tcp.sin_family = AF_INET;
    handle->target.tcp.sin_port = htons((unsigned short)port);
    handle->target.tcp.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    return 1;
}

static int set_options(call_type *call, spinescore_handle *handle, const spinescore_options *from) {
    handle->connect_timeout_ms = from->connect_timeout_ms != 0 ? from->connect_timeout_ms : 2000;
    handle->send_timeout_ms = from->send_timeout_ms != 0 ? from->send_timeout_ms : 10000;
    handle->timeout_ms = from->timeout_ms != 0 ? from->timeout_ms : 60000;
    if (from->token != NULL && !is_word(from->token, sizeof handle->token))
        return usage(call, "options.token is empty, too long, or not ASCII without a blank.");
    copy_text(handle->token, sizeof handle->token, from->token);
    return set_address(call, handle, from->address);
}

int spinescore_open(const spinescore_options *options, spinescore_handle **handle,
                    spinescore_problem *problem) {
    spinescore_options taken;
    spinescore_handle *opened = NULL;
    call_type call;
    begin_call(&call);
    if (handle == NULL) usage(&call, "The place for the handle is NULL.");
    if (take(&call, &taken, sizeof taken, options)) {
        opened = (spinescore_handle *)calloc(1, sizeof *opened);
        if (opened == NULL || (set_options(&call, opened, &taken) && !start_sockets()))
            fail(&call, SPINESCORE_NO_MEMORY, "There is no memory, or there are no sockets.");
    }
    if (has_failed(&call)) {
        free(opened);
        opened = NULL;
    }
    if (handle != NULL) *handle = opened;
    return end_call(&call, problem);
}

void spinescore_close(spinescore_handle *handle) {
    volatile char *place = (volatile char *)handle; /* so that no compiler leaves the loop out */
    size_t i;
    if (handle == NULL) return;
    for (i = 0; i < sizeof *handle; i++)
        place[i] = 0; /* the token, and the rest of the last study */
    stop_sockets();
    free(handle);
}

int spinescore_cancel(spinescore_handle *handle) {
    return handle != NULL && swap_state(&handle->state, RUNNING, STOPPED) == RUNNING;
}

/* ---- The connection ---- */

/* Begins a step that ends within `limit_ms` after the start of the call, and with the call. */
static void begin_step(call_type *call, const char *step, uint64_t limit_ms) {
    call->step = step;
    if (limit_ms > call->handle->timeout_ms) limit_ms = call->handle->timeout_ms;
    call->end_ms = call->start_ms + (int64_t)limit_ms;
}

/* Whether no step failed, nobody cancelled the call, and the time is not over. */
static int goes_on(call_type *call) {
    if (has_failed(call)) return 0;
    if (swap_state(&call->handle->state, STOPPED, STOPPED) == STOPPED)
        return fail(call, SPINESCORE_CANCELLED, "The call was cancelled.");
    if (now_ms() < call->end_ms) return 1;
    return fail(call, SPINESCORE_TIMEOUT, "%s took longer than %ld ms.", call->step,
                (long)(call->end_ms - call->start_ms));
}

/* Waits for one slice. Returns the events for which a socket is ready; a broken one is for all. */
static int wait_slice(socket_type one, int events) {
    struct pollfd entry = {one, (short)events, 0};
    if (poll(&entry, 1, SLICE_MS) <= 0) return 0;
    return entry.revents & ~events ? events : entry.revents;
}

static void open_connection(call_type *call) {
    const spinescore_handle *handle = call->handle;
    const struct sockaddr *target = &handle->target.any;
    socklen_t size = (socklen_t)sizeof(int);
    int error, yes = 1;
    begin_step(call, "Connecting", handle->connect_timeout_ms);
    call->socket = socket(target->sa_family, SOCK_STREAM, 0);
    if (call->socket == NO_SOCKET) {
        fail(call, SPINESCORE_NO_MEMORY, "There is no socket (error %d).", last_error());
        return;
    }
    error = start_connecting(call->socket, target, handle->target_size);
    while (is_passing(error) && goes_on(call)) {
        if (error == EAGAIN) { /* too many wait for a Unix socket: nothing is in progress */
            wait_slice(NO_SOCKET, 0);
            error = start_connecting(call->socket, target, handle->target_size);
        } else if (wait_slice(call->socket, POLLOUT)) {
            getsockopt(call->socket, SOL_SOCKET, SO_ERROR, (char *)&error, &size);
        }
    }
    if (error != 0)
        fail(call, SPINESCORE_UNREACHABLE, "There is no service at %s (error %d).", handle->address,
             error);
    if (target->sa_family == AF_INET)
        setsockopt(call->socket, IPPROTO_TCP, TCP_NODELAY, (char *)&yes, sizeof yes);
}

/* Sends bytes. It stops as soon as the service answers or closes. */
static void send_all(call_type *call, const void *data, size_t bytes) {
    const char *next = (const char *)data;
    while (bytes > 0 && !call->is_answered && goes_on(call)) {
        int ready = wait_slice(call->socket, POLLIN | POLLOUT);
        long sent = 0, part = bytes < 262144 ? (long)bytes : 262144;
        if (ready == POLLOUT)
            sent = (long)send(call->socket, next, (length_type)part, MSG_NOSIGNAL);
        if (sent > 0) {
            next += sent;
            bytes -= (size_t)sent;
        }
        call->is_answered = (ready & POLLIN) || (sent < 0 && !is_passing(last_error()));
    }
}

/* Receives bytes, if any come within one slice. All received before were read. */
static void receive(call_type *call) {
    spinescore_handle *handle = call->handle;
    long count;
    if (!wait_slice(call->socket, POLLIN)) return;
    count = (long)recv(call->socket, handle->received, sizeof handle->received, 0);
    if (count == 0 || (count < 0 && !is_passing(last_error())))
        fail(call, SPINESCORE_CLOSED, "The service closed the connection before its answer ended.");
    call->received_begin = 0;
    call->received_end = count > 0 ? (size_t)count : 0;
}

/* Moves received bytes to a buffer and to a file, if they are not NULL. */
static void read_bytes(call_type *call, char *buffer, FILE *file, uint64_t bytes) {
    while (bytes > 0 && goes_on(call)) {
        const char *data = call->handle->received + call->received_begin;
        size_t part = call->received_end - call->received_begin;
        if (part > bytes) part = (size_t)bytes;
        if (part == 0) receive(call);
        if (file != NULL && fwrite(data, 1, part, file) != part)
            fail(call, SPINESCORE_FILE, "The result's file cannot be written.");
        if (buffer != NULL) {
            memcpy(buffer, data, part);
            buffer += part;
        }
        call->received_begin += part;
        bytes -= part;
    }
}

/* ---- Answers ---- */

/* Reads the head of the next answer, which may be an interim one such as 100 Continue. */
static void read_head(call_type *call) {
    char *head = call->handle->head;
    size_t used = 0;
    long http;
    while (used < 4 || memcmp(head + used - 4, "\r\n\r\n", 4) != 0) {
        if (used + 1 == sizeof call->handle->head)
            fail(call, SPINESCORE_BAD_ANSWER, "The answer's head is wrong.");
        read_bytes(call, head + used, NULL, 1);
        if (has_failed(call)) return;
        if (head[used] >= 'A' && head[used] <= 'Z') head[used] = (char)(head[used] + 'a' - 'A');
        used++;
    }
    head[used] = 0;
    http = strncmp(head, "http/1.", 7) == 0 && head[8] == ' ' ? strtol(head + 9, NULL, 10) : 0;
    if (http < 100 || http > 599)
        fail(call, SPINESCORE_BAD_ANSWER, "The answer's head is wrong.");
    else
        call->http_status = (int)http;
}

/* Reads an answer up to its JSON or its result. The structs stay zero if it has none. */
static void read_structs(call_type *call) {
    sent_answer *answer = &call->answer;
    begin_step(call, "The call", UINT64_MAX);
    while (call->http_status < 200 && goes_on(call))
        read_head(call);
    if (strstr(call->handle->head, "\r\ncontent-type: " ANSWER_TYPE "\r\n") != NULL)
        read_bytes(call, (char *)answer, NULL, sizeof *answer);
    else if (call->http_status == 200)
        fail(call, SPINESCORE_BAD_ANSWER, "The service answered " NO_STRUCTS);
    if (answer->report.answer_bytes > MAX_RESULT_BYTES)
        fail(call, SPINESCORE_BAD_ANSWER, "The answer's size is wrong.");
}

static int status_of(int http) {
    if (http == 422) return SPINESCORE_REJECTED;
    if (http == 429 || http == 503) return SPINESCORE_BUSY;
    if (http == 408 || http == 504) return SPINESCORE_TIMEOUT;
    return http < 400 ? SPINESCORE_BAD_ANSWER : SPINESCORE_REFUSED;
}

/* Fails the call if the service answered anything but a success, whatever became of the rest. */
static void judge(call_type *call) {
    const spinescore_problem *told = &call->answer.problem;
    spinescore_problem *problem = &call->problem;
    if (call->http_status < 200) return;
    problem->http_status = call->http_status;
    if (call->http_status == 200) return;
    if (problem->status == SPINESCORE_CANCELLED || problem->status == SPINESCORE_TIMEOUT) return;
    problem->status = SPINESCORE_OK;
    fail(call, status_of(call->http_status),
         "The service answered with the HTTP status %d, " NO_STRUCTS, call->http_status);
    if (told->message[0] == 0) return; /* of a proxy, or of a service of another version */
    problem->retry_after_s = told->retry_after_s;
    memcpy(problem->code, told->code, sizeof problem->code - 1);
    memcpy(problem->message, told->message, sizeof problem->message - 1);
    memcpy(problem->next_step, told->next_step, sizeof problem->next_step - 1);
}

/* These are false for what is no number. */
static int is_within(double x, double low, double high) { return low <= x && x <= high; }
static int is_none_or(double x, double high) { return x == -1 || is_within(x, 0, high); }
static int is_range(const int32_t *range, int32_t high) {
    return is_within(range[0], 0, range[1]) && range[1] <= high;
}

static int is_corner(const spinescore_corner *corner) {
    int i, count = 0;
    for (i = 0; i < 4; i++)
        count += is_within(corner->probabilities[i], 0, 1) - (corner->probabilities[i] == -1);
    return IS_WORD(corner->site) && is_within(corner->status, 0, SPINESCORE_CORNER_IMPUTED) &&
           is_none_or(corner->grade, 3) && is_none_or(corner->imputed, 3) &&
           (corner->status == SPINESCORE_CORNER_SCORED) == (corner->grade >= 0) &&
           (count == 4 || count == -4);
}

static int is_disc(const spinescore_disc *disc) {
    int i, count = 0;
    for (i = 0; i < 2; i++)
        count += is_within(disc->centre_px[i], -1e6, 1e6) && is_corner(&disc->corners[i]) &&
                 is_within(disc->anterior_px[i], -1e6, 1e6);
    return count == 2 && IS_WORD(disc->level) && is_within(disc->confidence, 0, 1) &&
           is_within(disc->rotation_deg, -180, 180) && is_none_or(disc->total, 6);
}

static int is_region(const spinescore_region *region) {
    uint32_t i, count = region->status == SPINESCORE_REGION_SCORED ? 6 : 0;
    for (i = 0; i < count && is_disc(&region->discs[i]); i++) {}
    return i == count && region->disc_count == count && is_within(region->missing, 0, 12) &&
           is_within(region->status, 0, SPINESCORE_REGION_MISSING) &&
           is_none_or(region->total, 36) && is_range(region->range, 36) &&
           (region->reject_code[0] == 0 || IS_WORD(region->reject_code));
}

static int are_findings(const spinescore_finding *findings, uint32_t count, uint32_t most) {
    uint32_t i;
    if (count > most) count = most;
    for (i = 0; i < count && IS_WORD(findings[i].code) && is_none_or(findings[i].region, 1); i++) {}
    return i == count;
}

static int is_report(const spinescore_report *report) {
    const spinescore_result *results = report->results;
    uint32_t i, count = report->result_count;
    for (i = 0; i < count && i < 16 && IS_WORD(results[i].format) && IS_WORD(results[i].path);
         i++) {}
    return i == count && size_of(report, sizeof *report) != 0 &&
           memchr(report->study_instance_uid, 0, sizeof report->study_instance_uid) != NULL &&
           is_within(report->total_status, 0, SPINESCORE_TOTAL_INCOMPLETE) &&
           is_none_or(report->total, 72) && is_range(report->range, 72) &&
           is_none_or(report->within_budget, 1) && is_none_or(report->elapsed_ms, 1e12) &&
           is_region(&report->regions[0]) && is_region(&report->regions[1]) &&
           are_findings(report->warnings, report->warning_count, 32) &&
           are_findings(report->rejects, report->reject_count, 16);
}

/* ---- Studies ---- */

static int is_sound(const spinescore_view *view, size_t row_bytes) {
    const double *mm = view->pixel_spacing_mm;
    if (view->data == NULL || view->data_bytes == 0) return 0;
    if ((view->header != NULL) != (view->header_bytes != 0)) return 0;
    if (view->rows == 0) return view->header == NULL;
    if (view->rows > 65535 || view->columns == 0 || view->columns > 65535) return 0;
    if (view->bits_allocated != 8 && view->bits_allocated != 16) return 0;
    if (view->bits_stored > view->bits_allocated) return 0;
    if (!is_within(mm[0], 0, 1000) || !is_within(mm[1], 0, 1000)) return 0;
    if ((mm[0] > 0) != (mm[1] > 0)) return 0;
    if (view->row_stride_bytes < row_bytes || view->data_bytes < row_bytes) return 0;
    return view->rows - 1 <= (view->data_bytes - row_bytes) / view->row_stride_bytes;
}

#define COPY(field) copy_text(sent->field, sizeof sent->field, view->field)

/* Checks a view, and describes it for the service. Its last row needs no padding. */
static int pack_view(call_type *call, spinescore_view *view, sent_view *sent) {
    size_t row_bytes = (size_t)view->columns * (view->bits_allocated / 8);
    if (view->row_stride_bytes == 0) view->row_stride_bytes = row_bytes;
    if (!is_sound(view, row_bytes))
        return usage(call, "A view's rows, columns, bits, stride, spacing, data, header do not fit "
                           "together.");
    if (view->rows != 0) view->data_bytes = (view->rows - 1) * view->row_stride_bytes + row_bytes;
    sent->rows = view->rows;
    sent->columns = view->columns;
    sent->bits_allocated = view->bits_allocated;
    sent->bits_stored = view->bits_stored;
    memcpy(sent->pixel_spacing_mm, view->pixel_spacing_mm, sizeof sent->pixel_spacing_mm);
    sent->header_bytes = view->header_bytes;
    sent->data_bytes = view->data_bytes;
    sent->row_stride_bytes = view->row_stride_bytes;
    return (COPY(photometric_interpretation) && COPY(region) && COPY(facing) &&
            COPY(study_instance_uid) && COPY(sop_instance_uid)) ||
           usage(call, "A text of a view is too long.");
}

/* Checks a request and its views, whose structs may be longer than ours, and makes what is sent. */
static int pack_request(call_type *call, const spinescore_request *request, spinescore_view *views,
                        sent_request *sent) {
    const char *next = (const char *)request->views;
    uint32_t i;
    memset(sent, 0, sizeof *sent);
    sent->struct_size = (uint32_t)sizeof *sent;
    sent->view_count = request->view_count;
    sent->budget_ms = request->budget_ms;
    sent->strict = request->strict != 0;
    if (!copy_text(sent->formats, sizeof sent->formats, request->formats))
        return usage(call, "request.formats is too long.");
    if (request->answer != NULL && request->answer_capacity == 0)
        return usage(call, "request.answer_capacity is 0.");
    if (next == NULL || request->view_count < 1 || request->view_count > MAX_VIEWS)
        return usage(call, "A study has 1 to 4 views.");
    for (i = 0; i < request->view_count; i++, next += request->views->struct_size)
        if (!take(call, &views[i], sizeof views[i], next) ||
            !pack_view(call, &views[i], &sent->views[i]))
            return 0;
    return 1;
}

/* Sends the head of a request; one without a body asks for the path. */
static void send_head(call_type *call, const char *path, uint64_t body_bytes) {
    spinescore_handle *handle = call->handle;
    const char *token = handle->token;
    int bytes = snprintf(handle->head, sizeof handle->head,
                         "%s %s HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"
                         "Accept: " ANSWER_TYPE "\r\nContent-Type: " REQUEST_TYPE "\r\n"
                         "Content-Length: %lu\r\n%s%s%s%s\r\n",
                         body_bytes > 0 ? "POST" : "GET", path, (unsigned long)body_bytes,
                         body_bytes > 0 ? "Expect: 100-continue\r\n" : "",
                         *token ? "Authorization: Bearer " : "", token, *token ? "\r\n" : "");
    begin_step(call, "Sending", (uint64_t)handle->connect_timeout_ms + handle->send_timeout_ms);
    send_all(call, handle->head, (size_t)bytes);
}

/* Waits until the service wants the study: it says 100 Continue, or nothing for a second. One that
   refuses the study answers before it comes, and closes the connection. Bytes of a study that
   arrive then would make Windows discard the answer. */
static void await_continue(call_type *call) {
    int ready = 0, slices = CONTINUE_MS / SLICE_MS;
    while (!ready && slices-- > 0 && goes_on(call))
        ready = wait_slice(call->socket, POLLIN);
    if (ready) read_head(call);
    call->is_answered = call->http_status >= 200 || call->received_begin < call->received_end;
}

static void send_study(call_type *call, const sent_request *sent, const spinescore_view *views) {
    uint64_t bytes = sizeof *sent;
    uint32_t i;
    for (i = 0; i < sent->view_count; i++)
        bytes += sent->views[i].header_bytes + sent->views[i].data_bytes;
    if (bytes > UINT32_MAX) usage(call, "The views have more than 4 GB.");
    send_head(call, "/v1/score", bytes);
    await_continue(call);
    send_all(call, sent, sizeof *sent);
    for (i = 0; i < sent->view_count; i++) {
        send_all(call, views[i].header, views[i].header_bytes);
        send_all(call, views[i].data, views[i].data_bytes);
    }
}

/* ---- Calls ---- */

/* Reads the answer to a study: its report, which is left zero if there is none, and its JSON. */
static void read_score(call_type *call, const spinescore_request *request) {
    spinescore_report *report = &call->answer.report;
    uint64_t json_bytes;
    int has_report;
    read_structs(call);
    json_bytes = report->answer_bytes;
    has_report = is_report(report);
    if (call->http_status == 200 && !has_report)
        fail(call, SPINESCORE_BAD_ANSWER, "The answer's report is missing or wrong.");
    if (request->answer != NULL && json_bytes >= request->answer_capacity)
        fail(call, SPINESCORE_TOO_LARGE, "The JSON has %lu bytes, the buffer is too small.",
             (unsigned long)json_bytes);
    read_bytes(call, request->answer, NULL, json_bytes);
    if (request->answer != NULL) request->answer[has_failed(call) ? 0 : json_bytes] = 0;
    if (has_failed(call) || !has_report) memset(report, 0, sizeof *report);
    report->answer_bytes = json_bytes;
    judge(call);
}

int spinescore_score(spinescore_handle *handle, const spinescore_request *request,
                     spinescore_report *report, spinescore_problem *problem) {
    spinescore_request taken;
    spinescore_view views[MAX_VIEWS];
    sent_request sent;
    call_type call;
    take_handle(&call, handle);
    if (size_of(report, sizeof *report) == 0) usage(&call, "The report has no struct_size.");
    if (take(&call, &taken, sizeof taken, request) && pack_request(&call, &taken, views, &sent)) {
        if (taken.answer != NULL) taken.answer[0] = 0;
        open_connection(&call);
        send_study(&call, &sent, views);
        read_score(&call, &taken);
    }
    give(report, &call.answer.report, sizeof call.answer.report);
    return end_call(&call, problem);
}

int spinescore_parse(const void *kept, size_t bytes, spinescore_report *report,
                     spinescore_problem *problem) {
    call_type call;
    spinescore_report *ours = &call.answer.report;
    begin_call(&call);
    if (size_of(report, sizeof *ours) == 0) usage(&call, "The report has no struct_size.");
    if (kept == NULL) usage(&call, "The kept report is NULL.");
    if (kept != NULL && bytes >= sizeof *ours) memcpy(ours, kept, sizeof *ours);
    if (!is_report(ours)) fail(&call, SPINESCORE_BAD_ANSWER, "The kept report is wrong.");
    if (has_failed(&call)) memset(ours, 0, sizeof *ours);
    give(report, ours, sizeof *ours);
    return end_call(&call, problem);
}

/* Asks for a path. Returns the size of what follows the structs; 0 if the call has failed. */
static uint64_t get(call_type *call, const char *path) {
    if (has_failed(call)) return 0;
    open_connection(call);
    send_head(call, path, 0);
    read_structs(call);
    judge(call);
    return has_failed(call) ? 0 : call->answer.report.answer_bytes;
}

int spinescore_ready(spinescore_handle *handle, spinescore_problem *problem) {
    call_type call;
    take_handle(&call, handle);
    get(&call, "/health/ready");
    return end_call(&call, problem);
}

/* Asks for a result. A path may have no character that ends a line or a word of the head. */
static uint64_t get_result(call_type *call, const char *path) {
    if (path == NULL || strncmp(path, "/v1/results/", 12) != 0 || !is_word(path, 1024))
        usage(call, "The path is not that of a result.");
    return get(call, path);
}

int spinescore_fetch(spinescore_handle *handle, const char *path, void *buffer, size_t capacity,
                     size_t *bytes, spinescore_problem *problem) {
    uint64_t size;
    call_type call;
    take_handle(&call, handle);
    if (buffer == NULL || bytes == NULL) usage(&call, "The buffer or bytes is NULL.");
    size = get_result(&call, path);
    if (bytes != NULL) *bytes = (size_t)size;
    if (size > capacity)
        fail(&call, SPINESCORE_TOO_LARGE, "The result has %lu bytes.", (unsigned long)size);
    read_bytes(&call, (char *)buffer, NULL, size);
    if (has_failed(&call) && call.problem.status != SPINESCORE_TOO_LARGE && bytes != NULL)
        *bytes = 0;
    return end_call(&call, problem);
}

int spinescore_fetch_to_file(spinescore_handle *handle, const char *path, const char *file,
                             spinescore_problem *problem) {
    char part[1024];
    FILE *opened = NULL;
    uint64_t size;
    call_type call;
    take_handle(&call, handle);
    if (file == NULL || *file == 0 || strlen(file) + 6 > sizeof part)
        usage(&call, "The file's name is missing or too long.");
    size = get_result(&call, path);
    if (!has_failed(&call)) {
        snprintf(part, sizeof part, "%s.part", file);
        opened = make_file(part);
        if (opened == NULL) fail(&call, SPINESCORE_FILE, "The file %.400s cannot be made.", part);
    }
    read_bytes(&call, NULL, opened, size);
    if (opened != NULL && (fclose(opened) != 0 || has_failed(&call) || !rename_file(part, file))) {
        fail(&call, SPINESCORE_FILE, "The file %.400s cannot be written.", file);
        remove_file(part);
    }
    return end_call(&call, problem);
}
