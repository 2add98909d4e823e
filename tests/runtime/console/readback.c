/* Reads each file of the command line as a kept report, and prints every field of the report as a line of words.

   With the word -s in front it prints only the names of the statuses. With -c it prints the table of codes. */
#include "spinescore.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void print_numbers(const char *name, const double *values, int count) {
    int i;
    printf("%s", name);
    for (i = 0; i < count; i++) printf(" %.17g", values[i]);
    printf("\n");
}

static void print_disc(const spinescore_disc *disc) {
    int i;
    printf("disc %s\n", disc->level);
    print_numbers("centre", disc->centre_px, 2);
    print_numbers("anterior", disc->anterior_px, 2);
    print_numbers("confidence", &disc->confidence, 1);
    print_numbers("rotation", &disc->rotation_deg, 1);
    print_numbers("total", &disc->total, 1);
    for (i = 0; i < 2; i++) {
        const spinescore_corner *corner = &disc->corners[i];
        printf("corner %s %d %d\n", corner->site, (int)corner->status, (int)corner->grade);
        print_numbers("imputed", &corner->imputed, 1);
        print_numbers("probabilities", corner->probabilities, 4);
    }
}

static void print_findings(const char *name, const spinescore_finding *findings, uint32_t count, uint32_t most) {
    uint32_t i;
    printf("%s %u\n", name, (unsigned)count);
    for (i = 0; i < count && i < most; i++) printf("finding %s %d\n", findings[i].code, (int)findings[i].region);
}

static void print_report(const spinescore_report *report) {
    uint32_t i, j;
    printf("study %s %d %d..%d %d %lu\n", report->study_instance_uid, (int)report->total_status, (int)report->range[0],
           (int)report->range[1], (int)report->within_budget, (unsigned long)report->answer_bytes);
    print_numbers("total", &report->total, 1);
    print_numbers("elapsed", &report->elapsed_ms, 1);
    for (i = 0; i < 2; i++) {
        const spinescore_region *region = &report->regions[i];
        printf("region %d %d %d..%d %s %u\n", (int)region->status, (int)region->missing, (int)region->range[0],
               (int)region->range[1], region->reject_code[0] ? region->reject_code : "-", (unsigned)region->disc_count);
        print_numbers("total", &region->total, 1);
        for (j = 0; j < region->disc_count; j++) print_disc(&region->discs[j]);
    }
    print_findings("warnings", report->warnings, report->warning_count, 32);
    print_findings("rejects", report->rejects, report->reject_count, 16);
    for (i = 0; i < report->result_count; i++)
        printf("result %s %s\n", report->results[i].format, report->results[i].path);
}

static void print_codes(void) {
    const spinescore_code *code;
    size_t i;
    for (i = 0; (code = spinescore_list_codes(i)) != NULL; i++)
        printf("%s\t%s\t%s\t%s\t%d\n", code->name, code->severity, code->meaning, code->next_step,
               spinescore_find_code(code->name) == code);
}

int main(int count, char **words) {
    static char kept[2000000];
    int is_short = count > 1 && strcmp(words[1], "-s") == 0, i;
    if (count > 1 && strcmp(words[1], "-c") == 0) print_codes();
    for (i = is_short ? 2 : 1; i < count && strcmp(words[1], "-c") != 0; i++) {
        spinescore_report report = SPINESCORE_REPORT_INIT;
        spinescore_problem problem = SPINESCORE_PROBLEM_INIT;
        FILE *file = fopen(words[i], "rb");
        size_t size;
        char *exact;
        if (file == NULL) return 1;
        size = fread(kept, 1, sizeof kept, file);
        (void)fclose(file);
        if ((exact = (char *)malloc(size + !size)) == NULL) return 1; /* so that a byte too far is seen */
        memcpy(exact, kept, size);
        (void)spinescore_parse(exact, size, &report, &problem);
        free(exact);
        if (is_short || problem.status != SPINESCORE_OK)
            printf("%s %s\n", spinescore_status_name(problem.status), problem.message);
        else
            print_report(&report);
    }
    return 0;
}
