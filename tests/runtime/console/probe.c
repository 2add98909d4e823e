/* Makes a call for each case that the command line names, and prints a line for each.

     probe ADDRESS FOLDER CASE...

   The case is the token, by which the double of the service knows its behaviour. A case that begins with fetch-, file-
   or ready- makes that call, with the rest as the token; cancel... is cancelled by another thread; slow... has short
   time-outs; own-... gives a buffer for the answer; twice-... makes the call with a handle that is in use; many-... makes
   it in four threads with a handle each. */
#define _POSIX_C_SOURCE 200809L
#include "spinescore.h"

#include <locale.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { ROWS = 701, COLUMNS = 503, STRIDE = 1100 };

static int begins(const char *text, const char *start) { return strncmp(text, start, strlen(start)) == 0; }

static void pause_ms(long ms) {
    struct timespec time;
    time.tv_sec = ms / 1000;
    time.tv_nsec = ms % 1000 * 1000000;
    (void)nanosleep(&time, NULL);
}

static void *cancel_soon(void *handle) {
    pause_ms(500);
    while (!spinescore_cancel((spinescore_handle *)handle)) pause_ms(20);
    return NULL;
}

/* Two views: 16 bits with padded rows, whose last row has no padding, and a header; and the bytes of a file. */
static void score(spinescore_handle *handle, const char *name, spinescore_problem *problem) {
    static const char file[] = "any bytes, with a \r\n--boundary in it", header[] = "a header";
    size_t bytes = (size_t)(ROWS - 1) * STRIDE + COLUMNS * 2, i;
    unsigned char *pixels = (unsigned char *)malloc(bytes);
    char *own = (char *)malloc(100000);
    spinescore_view views[2] = {SPINESCORE_VIEW_INIT, SPINESCORE_VIEW_INIT};
    spinescore_request request = SPINESCORE_REQUEST_INIT;
    spinescore_report report = SPINESCORE_REPORT_INIT;
    if (pixels == NULL || own == NULL) exit(1);
    for (i = 0; i < bytes; i++)
        pixels[i] = (unsigned char)(i % STRIDE >= COLUMNS * 2 ? 0xEE : (i / STRIDE * 7 + i % STRIDE) & 0x7F);
    views[0].data = pixels;
    views[0].data_bytes = bytes;
    views[0].row_stride_bytes = STRIDE;
    views[0].rows = ROWS;
    views[0].columns = COLUMNS;
    views[0].bits_allocated = 16;
    views[0].bits_stored = 12;
    views[0].pixel_spacing_mm[0] = 0.14;
    views[0].pixel_spacing_mm[1] = 1.0625;
    views[0].region = "cervical";
    views[0].sop_instance_uid = "1.2.\"3\\\n";
    views[0].header = header;
    views[0].header_bytes = sizeof header - 1;
    views[1].data = file;
    views[1].data_bytes = sizeof file - 1;
    request.views = views;
    request.view_count = 2;
    request.budget_ms = 800;
    request.formats = "sr,gsps";
    if (begins(name, "own-")) {
        request.answer = own;
        request.answer_capacity = 100000;
    }
    (void)spinescore_score(handle, &request, &report, problem);
    if (problem->status == SPINESCORE_OK) {
        const spinescore_corner *corner = &report.regions[1].discs[0].corners[1];
        printf(" total=%d range=%d..%d results=%u %s=%d own=%d", (int)report.total, (int)report.range[0],
               (int)report.range[1], (unsigned)report.result_count, corner->site, (int)corner->grade,
               begins(name, "own-") && strlen(own) == report.answer_bytes);
    }
    if (problem->status == SPINESCORE_REJECTED) printf(" rejects=%s", report.regions[0].reject_code);
    free(own);
    free(pixels);
}

static void fetch(spinescore_handle *handle, spinescore_problem *problem) {
    static unsigned char buffer[200000];
    size_t bytes, i;
    unsigned long sum = 0;
    (void)spinescore_fetch(handle, "/v1/results/4f/sr.dcm", buffer, sizeof buffer, &bytes, problem);
    for (i = 0; i < bytes && i < sizeof buffer; i++) sum += buffer[i];
    printf(" bytes=%lu sum=%lu", (unsigned long)bytes, sum);
}

struct other_call {
    spinescore_handle *handle;
    spinescore_problem problem;
};

static void *score_beside(void *argument) {
    struct other_call *call = (struct other_call *)argument;
    do score(call->handle, "twice-cancel", &call->problem);
    while (call->problem.status == SPINESCORE_IN_USE);
    return NULL;
}

/* While another thread scores with the handle, a second call says so; then the first one is cancelled. */
static void call_twice(spinescore_handle *handle, spinescore_problem *problem) {
    struct other_call other = {handle, SPINESCORE_PROBLEM_INIT};
    pthread_t thread;
    if (pthread_create(&thread, NULL, score_beside, &other) != 0) exit(1);
    while (spinescore_ready(handle, problem) != SPINESCORE_IN_USE) pause_ms(20);
    while (!spinescore_cancel(handle)) pause_ms(20);
    (void)pthread_join(thread, NULL);
    printf(" other=%s", spinescore_status_name(other.problem.status));
}

static void *score_thrice(void *argument) {
    static const uint16_t pixels[90 * 80] = {0};
    const spinescore_options *options = (const spinescore_options *)argument;
    spinescore_handle *handle;
    spinescore_view view = SPINESCORE_VIEW_INIT;
    spinescore_request request = SPINESCORE_REQUEST_INIT;
    spinescore_report report = SPINESCORE_REPORT_INIT;
    size_t right = 0;
    int i;
    view.data = pixels;
    view.data_bytes = sizeof pixels;
    view.rows = 90;
    view.columns = 80;
    view.bits_allocated = 16;
    request.views = &view;
    request.view_count = 1;
    if (spinescore_open(options, &handle, NULL) != SPINESCORE_OK) exit(1);
    for (i = 0; i < 3; i++)
        right += spinescore_score(handle, &request, &report, NULL) == SPINESCORE_OK && report.range[1] == 3;
    spinescore_close(handle);
    return (void *)right;
}

static void score_in_threads(spinescore_options *options) {
    pthread_t threads[4];
    size_t right = 0;
    void *one;
    int i;
    for (i = 0; i < 4; i++)
        if (pthread_create(&threads[i], NULL, score_thrice, options) != 0) exit(1);
    for (i = 0; i < 4; i++) {
        if (pthread_join(threads[i], &one) != 0) exit(1);
        right += (size_t)one;
    }
    printf(" right=%lu", (unsigned long)right);
}

static void run(spinescore_handle *handle, const char *name, const char *folder, spinescore_problem *problem) {
    char file[600];
    pthread_t thread;
    (void)snprintf(file, sizeof file, "%s/%s", folder, name);
    if (begins(name, "cancel") && pthread_create(&thread, NULL, cancel_soon, handle) != 0) exit(1);
    if (begins(name, "fetch-"))
        fetch(handle, problem);
    else if (begins(name, "file-"))
        (void)spinescore_fetch_to_file(handle, "/v1/results/4f/sr.dcm", file, problem);
    else if (begins(name, "ready-"))
        (void)spinescore_ready(handle, problem);
    else if (begins(name, "twice-"))
        call_twice(handle, problem);
    else
        score(handle, name, problem);
    if (begins(name, "cancel")) (void)pthread_join(thread, NULL);
}

int main(int count, char **words) {
    static const char *const prefixes[] = {"fetch-", "ready-", "file-", "own-", "twice-", "many-"};
    int i;
    size_t j;
    (void)setlocale(LC_ALL, "");
    for (i = 3; i < count; i++) {
        spinescore_options options = SPINESCORE_OPTIONS_INIT;
        spinescore_problem problem = SPINESCORE_PROBLEM_INIT;
        spinescore_handle *handle = NULL;
        options.address = words[1];
        options.token = words[i];
        for (j = 0; j < sizeof prefixes / sizeof prefixes[0]; j++)
            if (begins(words[i], prefixes[j])) options.token = words[i] + strlen(prefixes[j]);
        options.connect_timeout_ms = options.timeout_ms = options.send_timeout_ms = 100000;
        if (begins(words[i], "slow")) options.timeout_ms = 1000;
        if (strcmp(words[i], "slow-send") == 0) {
            options.timeout_ms = 100000;
            options.connect_timeout_ms = 500;
            options.send_timeout_ms = 500;
        }
        printf("%s", words[i]);
        if (begins(words[i], "many-"))
            score_in_threads(&options);
        else if (spinescore_open(&options, &handle, &problem) == SPINESCORE_OK)
            run(handle, words[i], words[2], &problem);
        spinescore_close(handle);
        printf(" | %s http=%d retry=%d code=%s | %s | %s\n", spinescore_status_name(problem.status),
               (int)problem.http_status, (int)problem.retry_after_s, problem.code, problem.message, problem.next_step);
    }
    return 0;
}
