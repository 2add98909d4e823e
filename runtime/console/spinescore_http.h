/* spinescore_http.h: the connection, and answers of HTTP/1.1 on it. Only spinescore.c includes it.

   Sockets never block: waits are slices of 20 ms, between which the cancel flag and the clock are read. */
#ifndef SPINESCORE_HTTP_H
#define SPINESCORE_HTTP_H

#include "spinescore_report.h"

/* ---- The connection ---- */

static int last_error(void) {
#ifdef _WIN32
    return WSAGetLastError();
#else
    return errno;
#endif
}

static void close_socket(socket_type one) {
    if (one == NO_SOCKET) return;
#ifdef _WIN32
    (void)closesocket(one);
#else
    (void)close(one);
#endif
}

/* Waits for one slice. Returns the events for which the socket is ready; a failed one is ready for all of them. */
static int wait_slice(socket_type one, int events) {
#ifdef _WIN32 /* WSAPoll does not report a connection that failed on older Windows, select does */
    fd_set readable, writable, failed;
    struct timeval time;
    time.tv_sec = 0;
    time.tv_usec = SLICE_MS * 1000;
    FD_ZERO(&readable);
    FD_ZERO(&writable);
    FD_ZERO(&failed);
    if (events & CAN_READ) FD_SET(one, &readable);
    if (events & CAN_WRITE) FD_SET(one, &writable);
    FD_SET(one, &failed);
    if (select(0, &readable, &writable, &failed, &time) <= 0) return 0;
    if (FD_ISSET(one, &failed)) return events;
    return (FD_ISSET(one, &readable) ? CAN_READ : 0) | (FD_ISSET(one, &writable) ? CAN_WRITE : 0);
#else
    struct pollfd entry;
    entry.fd = one;
    entry.events = (short)((events & CAN_READ ? POLLIN : 0) | (events & CAN_WRITE ? POLLOUT : 0));
    entry.revents = 0;
    if (poll(&entry, 1, SLICE_MS) <= 0) return 0;
    if (entry.revents & (POLLERR | POLLHUP | POLLNVAL)) return events;
    return (entry.revents & POLLIN ? CAN_READ : 0) | (entry.revents & POLLOUT ? CAN_WRITE : 0);
#endif
}

/* Whether the call goes on: not cancelled, and neither its own time nor that of its step is over. */
static int check_time(call_type *call, int64_t deadline_ms, const char *step) {
    int64_t now = now_ms();
    if (deadline_ms > call->deadline_ms) deadline_ms = call->deadline_ms;
    if (swap_state(&call->handle->state, STOPPED, STOPPED) == STOPPED)
        return fail(call->problem, SPINESCORE_CANCELLED, "Nothing.", "The call was cancelled.");
    if (now < deadline_ms) return SPINESCORE_OK;
    return fail(call->problem, SPINESCORE_TIMEOUT,
                "Look whether the service runs, and at its load; or raise the time-out.",
                "%s took longer than %ld ms.", step, (long)(deadline_ms - call->start_ms));
}

/* Waits until the socket can do one of `events`, which are returned in `ready`. */
static int wait_for(call_type *call, int events, int64_t deadline_ms, const char *step, int *ready) {
    for (;;) {
        int status = check_time(call, deadline_ms, step);
        *ready = 0;
        if (status != SPINESCORE_OK) return status;
        if ((*ready = wait_slice(call->socket, events)) != 0) return SPINESCORE_OK;
    }
}

/* Makes a socket that does not block, is not inherited by child processes, and raises no signal. */
static socket_type make_socket(int family) {
    socket_type one = socket(family, SOCK_STREAM, 0);
    int yes = 1;
#ifdef _WIN32
    /* else Windows asks a port on which nothing listens three times, for about two seconds */
    TCP_INITIAL_RTO_PARAMETERS once = {TCP_INITIAL_RTO_UNSPECIFIED_RTT, TCP_INITIAL_RTO_NO_SYN_RETRANSMISSIONS};
    DWORD ignored = 0;
    u_long mode = 1;
    if (one == NO_SOCKET) return one;
    (void)WSAIoctl(one, SIO_TCP_INITIAL_RTO, &once, (DWORD)sizeof once, NULL, 0, &ignored, NULL, NULL);
    (void)ioctlsocket(one, (long)FIONBIO, &mode);
    (void)SetHandleInformation((HANDLE)one, HANDLE_FLAG_INHERIT, 0);
#else
    if (one == NO_SOCKET) return one;
    (void)fcntl(one, F_SETFD, FD_CLOEXEC);
    (void)fcntl(one, F_SETFL, fcntl(one, F_GETFL) | O_NONBLOCK);
#ifdef SO_NOSIGPIPE
    (void)setsockopt(one, SOL_SOCKET, SO_NOSIGPIPE, &yes, sizeof yes);
#endif
#endif
    if (family == AF_INET) (void)setsockopt(one, IPPROTO_TCP, TCP_NODELAY, (const char *)&yes, sizeof yes);
    return one;
}

static int begin_connect(call_type *call) {
    const spinescore_handle *handle = call->handle;
    struct sockaddr_in tcp;
#ifndef _WIN32
    struct sockaddr_un local;
    if (!handle->is_tcp) {
        memset(&local, 0, sizeof local);
        local.sun_family = AF_UNIX;
        memcpy(local.sun_path, handle->address, strlen(handle->address)); /* spinescore_open checked its length */
        return connect(call->socket, (const struct sockaddr *)&local, (socklen_t)sizeof local);
    }
#endif
    memset(&tcp, 0, sizeof tcp);
    tcp.sin_family = AF_INET;
    tcp.sin_port = htons((unsigned short)handle->port);
    tcp.sin_addr.s_addr = htonl(handle->host);
    return connect(call->socket, (const struct sockaddr *)&tcp, (socklen_t)sizeof tcp);
}

static int open_connection(call_type *call) {
    int64_t deadline_ms = call->start_ms + call->handle->connect_timeout_ms;
    socklen_t size = sizeof(int);
    int error, ready, status;
    call->socket = make_socket(call->handle->is_tcp ? AF_INET : AF_UNIX);
    if (call->socket == NO_SOCKET)
        return fail(call->problem, SPINESCORE_NO_MEMORY, "Close files or connections.",
                    "There is no socket left (error %d).", last_error());
    for (;;) {
        if ((error = begin_connect(call)) == 0) return SPINESCORE_OK;
        error = last_error();
        if (call->handle->is_tcp || !BACKLOG_FULL(error)) break;
        if ((status = check_time(call, deadline_ms, "Connecting")) != SPINESCORE_OK) return status;
        (void)wait_slice(NO_SOCKET, 0); /* a pause */
    }
    if (WOULD_BLOCK(error) || INTERRUPTED(error)) {
        if ((status = wait_for(call, CAN_WRITE, deadline_ms, "Connecting", &ready)) != SPINESCORE_OK) return status;
        if (getsockopt(call->socket, SOL_SOCKET, SO_ERROR, (char *)&error, &size) != 0) error = last_error();
        if (error == 0) return SPINESCORE_OK;
    }
    return fail(call->problem, SPINESCORE_UNREACHABLE,
                "Start the service (spinescore serve), and check the address and who may use it.",
                "There is no service at %s (error %d).", call->handle->address, error);
}

static int64_t send_deadline_ms(const call_type *call) {
    return call->start_ms + call->handle->connect_timeout_ms + call->handle->send_timeout_ms;
}

/* Sends all bytes. Returns ANSWERED_EARLY if the service closes or answers before it took everything. */
static int send_all(call_type *call, const char *data, size_t bytes) {
    int64_t deadline_ms = send_deadline_ms(call);
    while (bytes > 0) {
        size_t part = bytes < ((size_t)1 << 18) ? bytes : (size_t)1 << 18;
        int ready, error, status;
        long sent;
        status = wait_for(call, CAN_READ | CAN_WRITE, deadline_ms, "Sending the study", &ready);
        if (status != SPINESCORE_OK) return status;
        if (ready & CAN_READ) return ANSWERED_EARLY;
        sent = (long)send(call->socket, data, (length_type)part, SEND_FLAGS);
        if (sent > 0) {
            data += sent;
            bytes -= (size_t)sent;
            continue;
        }
        error = last_error();
        if (!WOULD_BLOCK(error) && !INTERRUPTED(error)) return ANSWERED_EARLY;
    }
    return SPINESCORE_OK;
}

/* Receives more bytes if none are left. `is_end` gets whether the service closed the connection. */
static int receive(call_type *call, int *is_end) {
    *is_end = 0;
    while (call->received_begin == call->received_end && !*is_end) {
        int ready, error, status;
        long count;
        if ((status = wait_for(call, CAN_READ, INT64_MAX, "The call", &ready)) != SPINESCORE_OK) return status;
        count = (long)recv(call->socket, call->handle->bytes, (length_type)sizeof call->handle->bytes, 0);
        error = count < 0 ? last_error() : 0;
        call->received_begin = 0;
        call->received_end = count > 0 ? (size_t)count : 0;
        *is_end = count == 0 || (count < 0 && !WOULD_BLOCK(error) && !INTERRUPTED(error));
    }
    return SPINESCORE_OK;
}

/* ---- The answer ---- */

static int bad_answer(call_type *call, const char *message) {
    return fail(call->problem, SPINESCORE_BAD_ANSWER, "Check that the address is that of a spinescore service.", "%s",
                message);
}

static int closed_early(call_type *call) {
    return fail(call->problem, SPINESCORE_CLOSED,
                "Make the call again, and look at the log of the service if it happens again.",
                "The service closed the connection before its answer was complete.");
}

/* Reads one line, without its CR LF, into `handle->line`. */
static int read_line(call_type *call) {
    char *line = call->handle->line;
    size_t used = 0;
    for (;;) {
        int is_end, status = receive(call, &is_end);
        char c;
        if (status != SPINESCORE_OK) return status;
        if (is_end) return closed_early(call);
        c = call->handle->bytes[call->received_begin++];
        if (c == '\n') break;
        if (c == 0 || used + 1 >= sizeof call->handle->line) return bad_answer(call, "The answer's head is not HTTP.");
        line[used++] = c;
    }
    if (used == 0 || line[used - 1] != '\r')
        return bad_answer(call, "A line of the answer's head does not end with CR LF.");
    line[used - 1] = 0;
    return SPINESCORE_OK;
}

/* The value of a header line if it has that name, written in lower case; else NULL. */
static const char *header_value(const char *line, const char *name) {
    for (; *name != 0; line++, name++)
        if ((*line >= 'A' && *line <= 'Z' ? *line + 32 : *line) != *name) return NULL;
    if (*line++ != ':') return NULL;
    while (*line == ' ' || *line == '\t') line++;
    return line;
}

/* A decimal number of at most 18 digits, with nothing but blanks after it; -1 if it is none. */
static int64_t decimal(const char *text) {
    int64_t value = 0;
    int digits = 0;
    for (; *text >= '0' && *text <= '9'; text++, digits++) {
        if (digits == 18) return -1;
        value = value * 10 + (*text - '0');
    }
    while (*text == ' ' || *text == '\t') text++;
    return digits > 0 && *text == 0 ? value : -1;
}

static int read_header(call_type *call, const char *line) {
    const char *value;
    if (*line == ' ' || *line == '\t' || strchr(line, ':') == NULL)
        return bad_answer(call, "A line of the answer's head is no header.");
    if ((value = header_value(line, "content-length")) != NULL) {
        int64_t length = decimal(value);
        if (length < 0 || call->has_length)
            return bad_answer(call, "The answer's Content-Length is no number, or there are two.");
        call->length = (uint64_t)length;
        call->has_length = 1;
    } else if ((value = header_value(line, "transfer-encoding")) != NULL) {
        if (strcmp(value, "chunked") != 0 || call->is_chunked)
            return bad_answer(call, "The answer's Transfer-Encoding is not chunked.");
        call->is_chunked = 1;
    } else if ((value = header_value(line, "retry-after")) != NULL) {
        int64_t seconds = decimal(value);
        call->problem->retry_after_s = seconds < 0 ? -1 : seconds > 86400 ? 86400 : (int32_t)seconds;
    }
    return SPINESCORE_OK;
}

/* Reads the head of the next answer, which may be an interim one such as 100 Continue. */
static int read_next_head(call_type *call) {
    const char *line = call->handle->line;
    int status, count = 0;
    if ((status = read_line(call)) != SPINESCORE_OK) return status;
    if (strlen(line) < 12 || strncmp(line, "HTTP/1.", 7) != 0 || line[8] != ' ' || line[9] < '1' || line[9] > '5' ||
        skip_digits(line + 9, line + 12) != line + 12 || (line[12] != ' ' && line[12] != 0))
        return bad_answer(call, "The answer does not begin as one of HTTP/1.1 does.");
    call->http_status = (line[9] - '0') * 100 + (line[10] - '0') * 10 + (line[11] - '0');
    for (;;) {
        if ((status = read_line(call)) != SPINESCORE_OK) return status;
        if (*line == 0) return SPINESCORE_OK;
        if (++count > MAX_HEAD_LINES) return bad_answer(call, "The head of the answer is too long.");
        if ((status = read_header(call, line)) != SPINESCORE_OK) return status;
    }
}

/* Waits until the service wants the body: it says 100 Continue, or nothing for a second.
   A service that refuses the study answers before the body comes, and closes the connection. Bytes of a body that
   arrive then would make Windows discard the answer. Returns ANSWERED_EARLY if that answer is here. */
static int await_continue(call_type *call) {
    int64_t end_ms = now_ms() + CONTINUE_MS;
    int status;
    while (call->http_status != 100) {
        if (call->received_begin == call->received_end && wait_slice(call->socket, CAN_READ) == 0) {
            status = check_time(call, send_deadline_ms(call), "Sending the study");
            if (status != SPINESCORE_OK || now_ms() >= end_ms) return status;
        } else {
            if ((status = read_next_head(call)) != SPINESCORE_OK) return status;
            if (call->http_status >= 200) return ANSWERED_EARLY;
        }
    }
    return SPINESCORE_OK;
}

/* Reads the head of the answer, if that has not come yet. Interim answers are passed over. */
static int read_head(call_type *call) {
    int status;
    while (call->http_status < 200)
        if ((status = read_next_head(call)) != SPINESCORE_OK) return status;
    call->problem->http_status = call->http_status;
    if (call->is_chunked && call->has_length)
        return bad_answer(call, "The answer has both a Content-Length and chunks.");
    return SPINESCORE_OK;
}

static int too_large(call_type *call, uint64_t capacity) {
    return fail(call->problem, SPINESCORE_TOO_LARGE, "Give a larger buffer.",
                "The answer is larger than the buffer of %lu bytes.", (unsigned long)capacity);
}

/* Moves `bytes` bytes of the body to the sink. */
static int read_bytes(call_type *call, sink_type *sink, uint64_t bytes) {
    while (bytes > 0) {
        int is_end, status = receive(call, &is_end);
        size_t part = call->received_end - call->received_begin;
        const char *data = call->handle->bytes + call->received_begin;
        if (status != SPINESCORE_OK) return status;
        if (is_end) return closed_early(call);
        if (part > bytes) part = (size_t)bytes;
        if (sink->used + part > sink->capacity) return too_large(call, sink->capacity);
        if (sink->file == NULL) {
            memcpy(sink->buffer + sink->used, data, part);
        } else if (fwrite(data, 1, part, sink->file) != part) {
            return fail(call->problem, SPINESCORE_FILE, "Free space on the disk.",
                        "The result's file cannot be written.");
        }
        sink->used += part;
        call->received_begin += part;
        bytes -= part;
    }
    return SPINESCORE_OK;
}

static int read_chunks(call_type *call, sink_type *sink) {
    const char *line = call->handle->line;
    int status, i, trailers = 0;
    for (;;) {
        uint64_t size = 0;
        if ((status = read_line(call)) != SPINESCORE_OK) return status;
        for (i = 0; i < 9 && hex_value(line[i]) >= 0; i++) size = size * 16 + (uint64_t)hex_value(line[i]);
        if (i == 0 || i == 9 || (line[i] != 0 && line[i] != ';' && line[i] != ' '))
            return bad_answer(call, "A chunk of the answer has no size.");
        if (size == 0) break;
        if ((status = read_bytes(call, sink, size)) != SPINESCORE_OK) return status;
        if ((status = read_line(call)) != SPINESCORE_OK) return status;
        if (*line != 0) return bad_answer(call, "A chunk of the answer is longer than its size.");
    }
    do {
        if ((status = read_line(call)) != SPINESCORE_OK) return status;
    } while (*line != 0 && ++trailers < MAX_HEAD_LINES);
    return *line == 0 ? SPINESCORE_OK : bad_answer(call, "The answer has too many trailers.");
}

static int read_body(call_type *call, sink_type *sink) {
    if (call->is_chunked) return read_chunks(call, sink);
    if (!call->has_length) return bad_answer(call, "The answer states no length, so it may have been cut.");
    if (call->length > sink->capacity) return too_large(call, sink->capacity);
    return read_bytes(call, sink, call->length);
}

static int status_of(int http_status) {
    switch (http_status) {
    case 422:
        return SPINESCORE_REJECTED;
    case 429:
    case 503:
        return SPINESCORE_BUSY;
    case 408:
    case 504:
        return SPINESCORE_TIMEOUT;
    default:
        return http_status < 400 ? SPINESCORE_BAD_ANSWER : SPINESCORE_REFUSED;
    }
}

/* Reads the problem document of an answer that is no success, as far as it comes. Returns the status that fits. */
static int read_problem(call_type *call, sink_type *sink) {
    int status = read_body(call, sink);
    if (status == SPINESCORE_CANCELLED || status == SPINESCORE_TIMEOUT) return status;
    status = status_of(call->http_status);
    (void)fail(call->problem, status,
               status == SPINESCORE_BUSY ? "Try again later." : "Look at the log of the service.",
               "The service answered with the HTTP status %d.", call->http_status);
    parse_problem(sink->buffer, (size_t)sink->used, call->problem);
    return status;
}

#endif
