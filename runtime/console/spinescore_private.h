/* spinescore_private.h: structs and helpers of spinescore.c. Only spinescore.c includes it. */
#ifndef SPINESCORE_PRIVATE_H
#define SPINESCORE_PRIVATE_H

#include "spinescore.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#ifdef _WIN32
#include <winsock2.h>
#include <ws2tcpip.h>
#include <mstcpip.h>
#include <windows.h>
typedef SOCKET socket_type;
typedef int length_type;
#define NO_SOCKET INVALID_SOCKET
#define WOULD_BLOCK(error) ((error) == WSAEWOULDBLOCK || (error) == WSAEINPROGRESS)
#define INTERRUPTED(error) ((error) == WSAEINTR)
#define BACKLOG_FULL(error) (0)
#define SEND_FLAGS 0
#else
#include <arpa/inet.h>
#include <errno.h>
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
#define WOULD_BLOCK(error) ((error) == EAGAIN || (error) == EWOULDBLOCK || (error) == EINPROGRESS)
#define INTERRUPTED(error) ((error) == EINTR)
#define BACKLOG_FULL(error) ((error) == EAGAIN) /* of a Unix socket: nothing is in progress, so connect again */
#ifdef MSG_NOSIGNAL
#define SEND_FLAGS MSG_NOSIGNAL
#else
#define SEND_FLAGS 0 /* macOS has the socket option SO_NOSIGPIPE */
#endif
#endif

enum { SLICE_MS = 20, CONTINUE_MS = 1000 };
enum { MAX_DEPTH = 32, MAX_VIEWS = 4, MAX_HEAD_LINES = 100, MAX_STRUCT_BYTES = 65536 };
enum { IDLE = 0, RUNNING = 1, STOPPED = 2 }; /* states of a handle */
enum { CAN_READ = 1, CAN_WRITE = 2 };
enum { ANSWERED_EARLY = -1 }; /* beside the statuses: the service answered before it had everything */
#define MAX_FILE_BYTES ((uint64_t)1 << 30)

struct spinescore_handle {
    volatile long state;
    int is_tcp;
    unsigned port;
    uint32_t host; /* of TCP, in the host's byte order */
    uint32_t connect_timeout_ms, send_timeout_ms, timeout_ms;
    size_t answer_capacity;
    char *answer; /* the handle's own buffer, which lies behind this struct */
    char address[256], token[512];
    char line[8192], text[16384], bytes[65536];
};

/* One call in progress. `handle->bytes` between the two places was received and not yet read. */
typedef struct {
    spinescore_handle *handle;
    spinescore_problem *problem;
    socket_type socket;
    int64_t start_ms, deadline_ms;
    size_t received_begin, received_end;
    int http_status, is_chunked, has_length;
    uint64_t length;
} call_type;

/* Where an answer's body goes: a buffer or a file. */
typedef struct {
    char *buffer;
    FILE *file;
    uint64_t capacity, used;
} sink_type;

static int fail(spinescore_problem *problem, int status, const char *next_step, const char *format, ...)
#ifdef __GNUC__
    __attribute__((format(printf, 4, 5)))
#endif
    ;

/* Fills status, message and next step of the problem, and returns `status`. */
static int fail(spinescore_problem *problem, int status, const char *next_step, const char *format, ...) {
    va_list values;
    problem->status = status;
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

/* Whether a struct of the caller's states a size that can be true: this is version 1, so none is shorter than ours. */
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

/* Overwrites memory that is freed next, which a compiler may leave out if memset does it. */
static void wipe(void *memory, size_t bytes) {
    volatile char *place = (volatile char *)memory;
    while (bytes > 0) place[--bytes] = 0;
}

static int64_t now_ms(void) {
#ifdef _WIN32
    return (int64_t)GetTickCount64();
#else
    struct timespec now;
    (void)clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
#endif
}

/* Replaces `from` with `to` in one step, and returns the value before. */
static long swap_state(volatile long *state, long from, long to) {
#ifdef _WIN32
    return InterlockedCompareExchange(state, to, from);
#else
    return __sync_val_compare_and_swap(state, from, to);
#endif
}

#endif
