/* Calls the library wrongly, and as programs of other versions do; prints a line for each call. */
#include "spinescore.h"

#include <stdio.h>
#include <string.h>

static const uint16_t PIXELS[100 * 60] = {0};

static spinescore_view a_view(void) {
    spinescore_view view = SPINESCORE_VIEW_INIT;
    view.data = PIXELS;
    view.data_bytes = sizeof PIXELS;
    view.rows = 100;
    view.columns = 60;
    view.bits_allocated = 16;
    return view;
}

static void score(spinescore_handle *handle, const char *name, const spinescore_view *views, uint32_t count,
                  const char *formats) {
    spinescore_request request = SPINESCORE_REQUEST_INIT;
    spinescore_report report = SPINESCORE_REPORT_INIT;
    spinescore_problem problem = SPINESCORE_PROBLEM_INIT;
    request.views = views;
    request.view_count = count;
    request.formats = formats;
    (void)spinescore_score(handle, &request, &report, &problem);
    printf("%s: %s\n", name, spinescore_status_name(problem.status));
}

static void score_views(spinescore_handle *handle) {
    static char long_text[20000];
    spinescore_view views[5];
    int i;
    memset(long_text, 'x', sizeof long_text - 1);
    for (i = 0; i < 5; i++) views[i] = a_view();
    score(handle, "sound", views, 1, "sr");
    score(handle, "no-views", NULL, 1, NULL);
    score(handle, "zero-views", views, 0, NULL);
    score(handle, "five-views", views, 5, NULL);
    score(handle, "formats", views, 1, long_text);
    views[0].rows = 101;
    score(handle, "a-row-too-many", views, 1, NULL);
    views[0] = a_view();
    views[0].row_stride_bytes = 121;
    score(handle, "stride-beyond-the-data", views, 1, NULL);
    views[0].rows = 99;
    score(handle, "stride-within-the-data", views, 1, NULL);
    views[0].row_stride_bytes = 119;
    score(handle, "stride-below-a-row", views, 1, NULL);
    views[0].row_stride_bytes = (size_t)-1;
    score(handle, "stride-huge", views, 1, NULL);
    views[0] = a_view();
    views[0].columns = 0;
    score(handle, "no-columns", views, 1, NULL);
    views[0] = a_view();
    views[0].bits_allocated = 12;
    score(handle, "bits-12", views, 1, NULL);
    views[0] = a_view();
    views[0].bits_stored = 17;
    score(handle, "bits-stored-17", views, 1, NULL);
    views[0] = a_view();
    views[0].pixel_spacing_mm[0] = 0.2;
    score(handle, "one-spacing", views, 1, NULL);
    views[0].pixel_spacing_mm[0] = views[0].pixel_spacing_mm[1] = -0.2;
    score(handle, "spacing-negative", views, 1, NULL);
    views[0] = a_view();
    views[0].data = NULL;
    score(handle, "no-data", views, 1, NULL);
    views[0] = a_view();
    views[0].header = PIXELS;
    score(handle, "header-of-no-bytes", views, 1, NULL);
    views[0].header_bytes = 10;
    score(handle, "header", views, 1, NULL);
    views[0].rows = 0;
    score(handle, "header-of-a-file", views, 1, NULL);
    views[0] = a_view();
    views[0].region = long_text;
    score(handle, "text-too-long", views, 1, NULL);
    views[0] = a_view();
    views[0].struct_size--;
    score(handle, "view-too-short", views, 1, NULL);
}

/* A program that was compiled with a later version has longer structs, in an array too. */
static void score_newer(spinescore_handle *handle) {
    struct newer_view {
        spinescore_view view;
        uint64_t added;
    } views[2];
    struct newer_report {
        spinescore_report report;
        uint64_t added;
    } report;
    spinescore_request request = SPINESCORE_REQUEST_INIT;
    memset(views, 0, sizeof views);
    memset(&report, 0xEE, sizeof report);
    views[0].view = views[1].view = a_view();
    views[0].view.struct_size = views[1].view.struct_size = (uint32_t)sizeof views[0];
    report.report.struct_size = (uint32_t)sizeof report;
    request.views = &views[0].view;
    request.view_count = 2;
    printf("newer: %s", spinescore_status_name(spinescore_score(handle, &request, &report.report, NULL)));
    printf(" %d %u\n", report.added == 0, (unsigned)(report.report.struct_size == sizeof report));
    views[1].added = 1;
    printf("newer-used: %s\n", spinescore_status_name(spinescore_score(handle, &request, &report.report, NULL)));
}

int main(int count, char **words) {
    spinescore_options options = SPINESCORE_OPTIONS_INIT;
    spinescore_handle *handle = NULL;
    spinescore_report report = SPINESCORE_REPORT_INIT;
    char buffer[10];
    size_t bytes;
    if (count < 2) return 1;
    options.struct_size = 0;
    printf("no-size: %s\n", spinescore_status_name(spinescore_open(&options, &handle, NULL)));
    options.struct_size = (uint32_t)sizeof options;
    options.address = words[1];
    printf("no-place: %s\n", spinescore_status_name(spinescore_open(&options, NULL, NULL)));
    printf("no-options: %s\n", spinescore_status_name(spinescore_open(NULL, &handle, NULL)));
    if (spinescore_open(&options, &handle, NULL) != SPINESCORE_OK) return 1;
    score_views(handle);
    score_newer(handle);
    score(NULL, "no-handle", NULL, 0, NULL);
    printf("no-request: %s\n", spinescore_status_name(spinescore_score(handle, NULL, &report, NULL)));
    report.struct_size = 0;
    printf("parse-no-size: %s\n", spinescore_status_name(spinescore_parse("{}", 2, &report, NULL)));
    printf("parse-nothing: %s\n", spinescore_status_name(spinescore_parse(NULL, 2, &report, NULL)));
    printf("fetch-elsewhere: %s\n",
           spinescore_status_name(spinescore_fetch(handle, "/v1/status", buffer, sizeof buffer, &bytes, NULL)));
    printf("fetch-two-lines: %s\n", spinescore_status_name(spinescore_fetch(handle, "/v1/results/a\r\nX: 1", buffer,
                                                                            sizeof buffer, &bytes, NULL)));
    printf("fetch-small: %s", spinescore_status_name(spinescore_fetch(handle, "/v1/results/4f/sr.dcm", buffer,
                                                                      sizeof buffer, &bytes, NULL)));
    printf(" %lu\n", (unsigned long)bytes);
    printf("no-folder: %s\n", spinescore_status_name(spinescore_fetch_to_file(handle, "/v1/results/4f/sr.dcm",
                                                                              "/nonexistent/sr.dcm", NULL)));
    printf("cancel-nothing: %d %d\n", spinescore_cancel(handle), spinescore_cancel(NULL));
    printf("ready: %s\n", spinescore_status_name(spinescore_ready(handle, NULL)));
    printf("codes: %d %d\n", spinescore_find_code("odd") == NULL, spinescore_find_code(NULL) == NULL);
    printf("names: %s %s\n", spinescore_status_name(-1), spinescore_status_name(99));
    spinescore_close(handle);
    spinescore_close(NULL);
    return 0;
}
