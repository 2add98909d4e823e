/* A target for libFuzzer: the first byte of the input chooses the reader of answers, or the reader of HTTP.

     clang -g -O1 -fsanitize=fuzzer,address,undefined -I SDK fuzz.c SDK/spinescore_codes.c -o fuzz
     ./fuzz -max_len=20000 -max_total_time=300 CORPUS */
#include "spinescore.c"

static spinescore_handle handle;
static char answer[65536];

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes);

/* Reads the input as what a service sends before it closes the connection. */
static void read_http(const char *data, size_t bytes) {
    int pair[2];
    call_type call;
    spinescore_problem problem;
    sink_type sink = {NULL, NULL, sizeof answer, 0};
    if (bytes > 60000 || socketpair(AF_UNIX, SOCK_STREAM, 0, pair) != 0) return;
    memset(&call, 0, sizeof call);
    clear_problem(&problem);
    sink.buffer = answer;
    handle.state = RUNNING;
    call.handle = &handle;
    call.problem = &problem;
    call.socket = pair[0];
    call.deadline_ms = now_ms() + 5000;
    if (write(pair[1], data, bytes) != (ssize_t)bytes) abort();
    (void)close(pair[1]);
    if (read_head(&call) == SPINESCORE_OK) (void)(call.http_status == 200 ? read_body : read_problem)(&call, &sink);
    (void)close(pair[0]);
}

static void read_json(const char *data, size_t bytes) {
    spinescore_report report = SPINESCORE_REPORT_INIT;
    char *exact = (char *)malloc(bytes + !bytes); /* so that a byte too far is seen */
    if (exact == NULL) return;
    memcpy(exact, data, bytes);
    if (spinescore_parse(exact, bytes, &report, NULL) == SPINESCORE_OK)
        if (report.total > 72 || report.result_count > 16 || report.regions[0].disc_count > 6) abort();
    free(exact);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes) {
    if (bytes == 0) return 0;
    if (data[0] & 1)
        read_json((const char *)data + 1, bytes - 1);
    else
        read_http((const char *)data + 1, bytes - 1);
    return 0;
}
