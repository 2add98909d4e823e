/* Scores the same two raw frames again and again, and prints for each call its milliseconds and the JSON.

     consolelibrary ADDRESS COUNT ROWS COLUMNS BITS_STORED PHOTOMETRIC (REGION FACING ROW_MM COLUMN_MM FILE) twice

   ROW_MM and COLUMN_MM are the spacing of the pixels. The environment variable SPINESCORE_TOKEN is the token over TCP. */
#define _POSIX_C_SOURCE 200809L
#include "spinescore.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { VIEWS = 2, FIRST_VIEW = 7, WORDS_OF_VIEW = 5, ANSWER_BYTES = 1 << 20 };

static double now_ms(void) {
    struct timespec now;
    (void)clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec * 1e3 + (double)now.tv_nsec / 1e6;
}

static void *read_frame(const char *name, size_t bytes) {
    FILE *file = fopen(name, "rb");
    void *pixels = malloc(bytes);
    if (file == NULL || pixels == NULL || fread(pixels, 1, bytes, file) != bytes) {
        (void)fprintf(stderr, "%s cannot be read\n", name);
        exit(1);
    }
    (void)fclose(file);
    return pixels;
}

static spinescore_view read_view(char **words, char **common) {
    spinescore_view view = SPINESCORE_VIEW_INIT;
    view.rows = (uint32_t)strtoul(common[0], NULL, 10);
    view.columns = (uint32_t)strtoul(common[1], NULL, 10);
    view.bits_allocated = 16;
    view.bits_stored = (uint32_t)strtoul(common[2], NULL, 10);
    view.photometric_interpretation = common[3];
    view.region = words[0];
    view.facing = words[1];
    view.pixel_spacing_mm[0] = strtod(words[2], NULL);
    view.pixel_spacing_mm[1] = strtod(words[3], NULL);
    view.data_bytes = (size_t)view.rows * view.columns * 2;
    view.data = read_frame(words[4], view.data_bytes);
    return view;
}

int main(int count, char **words) {
    static char answer[ANSWER_BYTES];
    spinescore_options options = SPINESCORE_OPTIONS_INIT;
    spinescore_request request = SPINESCORE_REQUEST_INIT;
    spinescore_report report = SPINESCORE_REPORT_INIT;
    spinescore_problem problem = SPINESCORE_PROBLEM_INIT;
    spinescore_view views[VIEWS];
    spinescore_handle *handle;
    long calls;
    int i;
    if (count != FIRST_VIEW + VIEWS * WORDS_OF_VIEW) return 2;
    for (i = 0; i < VIEWS; i++) views[i] = read_view(words + FIRST_VIEW + i * WORDS_OF_VIEW, words + 3);
    options.address = words[1];
    options.token = getenv("SPINESCORE_TOKEN");
    request.views = views;
    request.view_count = VIEWS;
    request.answer = answer;
    request.answer_capacity = sizeof answer;
    if (spinescore_open(&options, &handle, &problem) == SPINESCORE_OK)
        for (calls = strtol(words[2], NULL, 10); calls > 0 && problem.status == SPINESCORE_OK; calls--) {
            double started_ms = now_ms();
            (void)spinescore_score(handle, &request, &report, &problem);
            (void)printf("%.6f\n%s\n", now_ms() - started_ms, answer);
        }
    spinescore_close(handle);
    for (i = 0; i < VIEWS; i++) free((void *)(uintptr_t)views[i].data);
    if (problem.status != SPINESCORE_OK) (void)fprintf(stderr, "%s %s\n", problem.message, problem.next_step);
    return problem.status != SPINESCORE_OK;
}
