/* Scores one study by the service and prints it.

     score ADDRESS VIEW... [-o STRUCTURED_REPORT]

   ADDRESS is the path of a Unix socket, or 127.0.0.1:PORT; then the environment variable SPINESCORE_TOKEN is its token.
   A VIEW is a DICOM file, or raw pixels of 16 bits as REGION:ROWS:COLUMNS:FILE, such as cervical:3000:2400:neck.raw. */
#include "spinescore.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#ifdef _WIN32
#include <windows.h>
#endif

enum { MAX_VIEWS = 4, NAME_BYTES = 1024 };

/* Returns a file's name in UTF-8, as the library takes it. Windows gives it to main in the computer's code page. */
static const char *to_utf8(const char *name, char utf8[NAME_BYTES]) {
#ifdef _WIN32
    wchar_t wide[NAME_BYTES];
    if (MultiByteToWideChar(CP_ACP, 0, name, -1, wide, NAME_BYTES) == 0 ||
        WideCharToMultiByte(CP_UTF8, 0, wide, -1, utf8, NAME_BYTES, NULL, NULL) == 0)
        return "";
    return utf8;
#else
    (void)utf8;
    return name;
#endif
}

/* Returns the bytes of a file; NULL if it cannot be read. A console has its pixels in memory already. */
static void *read_file(const char *name, size_t *bytes) {
    FILE *file = fopen(name, "rb");
    void *data = NULL;
    long size;
    if (file == NULL) return NULL;
    if (fseek(file, 0, SEEK_END) == 0 && (size = ftell(file)) > 0 && fseek(file, 0, SEEK_SET) == 0) {
        data = malloc((size_t)size);
        *bytes = (size_t)size;
        if (data != NULL && fread(data, 1, *bytes, file) != *bytes) {
            free(data);
            data = NULL;
        }
    }
    (void)fclose(file);
    return data;
}

/* Describes one view. `words` is REGION:ROWS:COLUMNS:FILE or FILE. Returns the memory to free; NULL for a fault. */
static void *describe(const char *words, spinescore_view *view) {
    static const char *const regions[] = {"cervical", "lumbar"};
    char region[16], name[NAME_BYTES];
    unsigned rows, columns;
    void *data;
    int i;
    *view = (spinescore_view)SPINESCORE_VIEW_INIT;
    if (sscanf(words, "%15[a-z]:%u:%u:%1023[^\n]", region, &rows, &columns, name) == 4) {
        for (i = 0; i < 2; i++)
            if (strcmp(region, regions[i]) == 0) view->region = regions[i];
        view->rows = rows;
        view->columns = columns;
        view->bits_allocated = 16;
        words = name;
    }
    data = read_file(words, &view->data_bytes);
    view->data = data;
    if (data == NULL) (void)fprintf(stderr, "%s cannot be read\n", words);
    return data;
}

static void print_region(const char *name, const spinescore_region *region) {
    uint32_t i;
    if (region->status != SPINESCORE_REGION_SCORED) {
        (void)printf("%s: %s\n", name, region->status == SPINESCORE_REGION_MISSING ? "missing" : region->reject_code);
        return;
    }
    (void)printf("%s: %d to %d\n", name, (int)region->range[0], (int)region->range[1]);
    for (i = 0; i < region->disc_count; i++) {
        const spinescore_disc *disc = &region->discs[i];
        (void)printf("  %-7s %-14s %2d   %-14s %2d\n", disc->level, disc->corners[0].site, (int)disc->corners[0].grade,
                     disc->corners[1].site, (int)disc->corners[1].grade);
    }
}

static int print_problem(const spinescore_problem *problem) {
    (void)fprintf(stderr, "%s: %s\n  next: %s\n", *problem->code ? problem->code : spinescore_status_name(problem->status),
                  problem->message, problem->next_step);
    return 1;
}

static int score(spinescore_handle *handle, const spinescore_view *views, uint32_t count, const char *file) {
    spinescore_report report = SPINESCORE_REPORT_INIT;
    spinescore_request request = SPINESCORE_REQUEST_INIT;
    spinescore_problem problem = SPINESCORE_PROBLEM_INIT;
    char name[NAME_BYTES];
    uint32_t i;
    request.views = views;
    request.view_count = count;
    request.formats = file != NULL ? "sr" : NULL;
    if (spinescore_score(handle, &request, &report, &problem) != SPINESCORE_OK) return print_problem(&problem);
    print_region("cervical", &report.regions[SPINESCORE_CERVICAL]);
    print_region("lumbar", &report.regions[SPINESCORE_LUMBAR]);
    for (i = 0; i < report.warning_count && i < 32; i++) (void)printf("warning: %s\n", report.warnings[i].code);
    (void)printf("mSASSS %d, possible %d to %d\n", (int)report.total, (int)report.range[0], (int)report.range[1]);
    for (i = 0; file != NULL && i < report.result_count; i++)
        if (strcmp(report.results[i].format, "sr") == 0 &&
            spinescore_fetch_to_file(handle, report.results[i].path, to_utf8(file, name), &problem) != SPINESCORE_OK)
            return print_problem(&problem);
    return 0;
}

/* Opens a handle, scores, and closes it. A console keeps its handle for all studies. */
static int run(const char *address, const spinescore_view *views, uint32_t count, const char *file) {
    spinescore_options options = SPINESCORE_OPTIONS_INIT;
    spinescore_problem problem = SPINESCORE_PROBLEM_INIT;
    spinescore_handle *handle;
    int status;
    options.address = address;
    options.token = getenv("SPINESCORE_TOKEN");
    if (spinescore_open(&options, &handle, &problem) != SPINESCORE_OK) return print_problem(&problem);
    status = score(handle, views, count, file);
    spinescore_close(handle);
    return status;
}

int main(int count, char **words) {
    spinescore_view views[MAX_VIEWS];
    void *memory[MAX_VIEWS];
    const char *file = NULL;
    uint32_t used = 0;
    int i, status = 0;
    for (i = 2; i < count && status == 0; i++) {
        if (strcmp(words[i], "-o") == 0 && i + 1 < count) {
            file = words[++i];
        } else if (used == MAX_VIEWS || (memory[used] = describe(words[i], &views[used])) == NULL) {
            status = 2;
        } else {
            used++;
        }
    }
    if (used == 0 || status != 0) {
        (void)fprintf(stderr, "score ADDRESS VIEW... [-o STRUCTURED_REPORT], with 1 to 4 views\n");
        status = 2;
    }
    if (status == 0) status = run(words[1], views, used, file);
    while (used > 0) free(memory[--used]);
    return status;
}
