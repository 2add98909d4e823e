/* A target for libFuzzer: the first byte of the input chooses the check of kept reports, or the reader of answers.

     clang -g -O1 -fsanitize=fuzzer,address,undefined -I SDK fuzz.c SDK/spinescore_codes.c -o fuzz
     ./fuzz -max_len=20000 -max_total_time=300 CORPUS */
#include "spinescore.c"

static spinescore_handle handle;

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes);

/* Stops if a report that was believed holds what none can. */
static void look_at(const spinescore_report *report) {
    uint32_t i;
    if (!(report->total <= 72) || report->range[0] > report->range[1]) abort();
    for (i = 0; i < report->result_count; i++)
        if (strlen(report->results[i].path) >= sizeof report->results[i].path) abort();
    for (i = 0; i < 2; i++)
        if (report->regions[i].disc_count > 6 || strlen(report->regions[i].reject_code) > 47) abort();
}

/* Reads the input as what a service sends before it closes the connection. */
static void read_http(const char *data, size_t bytes) {
    int pair[2];
    call_type call;
    char answer[3000];
    spinescore_problem problem = SPINESCORE_PROBLEM_INIT;
    spinescore_request request = SPINESCORE_REQUEST_INIT;
    if (bytes > 60000 || socketpair(AF_UNIX, SOCK_STREAM, 0, pair) != 0) return;
    handle.state = IDLE;
    handle.timeout_ms = 5000;
    take_handle(&call, &handle);
    call.socket = pair[0];
    request.answer = answer;
    request.answer_capacity = sizeof answer;
    if (write(pair[1], data, bytes) != (ssize_t)bytes) abort();
    (void)close(pair[1]);
    read_score(&call, &request);
    if (end_call(&call, &problem) == SPINESCORE_OK && call.answer.report.struct_size == 0) abort();
    if (strlen(problem.message) >= sizeof problem.message) abort();
    if (call.answer.report.struct_size != 0) look_at(&call.answer.report);
}

static void read_kept(const char *data, size_t bytes) {
    spinescore_report report = SPINESCORE_REPORT_INIT;
    char *exact = (char *)malloc(bytes + !bytes); /* so that a byte too far is seen */
    if (exact == NULL) return;
    memcpy(exact, data, bytes);
    if (spinescore_parse(exact, bytes, &report, NULL) == SPINESCORE_OK) look_at(&report);
    free(exact);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes) {
    if (bytes == 0) return 0;
    if (data[0] & 1)
        read_kept((const char *)data + 1, bytes - 1);
    else
        read_http((const char *)data + 1, bytes - 1);
    return 0;
}
