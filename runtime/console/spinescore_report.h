/* spinescore_report.h: the report's JSON as a struct. Only spinescore.c includes it. */
#ifndef SPINESCORE_REPORT_H
#define SPINESCORE_REPORT_H

#include "spinescore_json.h"

/* A report while it is read: `fault` is the first field that is missing or wrong; after it nothing more is read. */
typedef struct {
    const char *fault;
} fields_type;

static const slice_type NOTHING = {"null", NULL};

static int is_null(slice_type value) { return *value.begin == 'n'; }

/* The member of an object; null if it is missing and may be. A second member of that name is a fault. */
static slice_type member(fields_type *fields, slice_type parent, const char *name, int is_needed) {
    slice_type value, result = NOTHING;
    const char *p = NULL;
    char key[40];
    int count = 0;
    if (fields->fault != NULL) return NOTHING;
    while (*parent.begin == '{' && next_entry(parent, &p, key, sizeof key, &value))
        if (strcmp(key, name) == 0) result = value, count++;
    if (count > 1 || (is_needed && count == 0)) fields->fault = name;
    return fields->fault == NULL ? result : NOTHING;
}

/* The same for an object ('{') or an array ('['). Another kind is a fault, but for null if it is not needed. */
static slice_type container(fields_type *fields, slice_type parent, const char *name, char kind, int is_needed) {
    slice_type value = member(fields, parent, name, is_needed);
    if (fields->fault == NULL && *value.begin != kind && (is_needed || !is_null(value))) fields->fault = name;
    return fields->fault == NULL ? value : NOTHING;
}

static double number_of(fields_type *fields, slice_type value, const char *name, double low, double high) {
    double number = 0;
    if (fields->fault != NULL) return 0;
    if ((*value.begin != '-' && (*value.begin < '0' || *value.begin > '9')) ||
        read_number(value.begin, value.end, &number) == NULL || number < low || number > high)
        fields->fault = name;
    return fields->fault == NULL ? number : 0;
}

static double number(fields_type *fields, slice_type parent, const char *name, double low, double high) {
    return number_of(fields, member(fields, parent, name, 1), name, low, high);
}

/* The same from 0 on; -1 for null or if it is missing. */
static double number_or_null(fields_type *fields, slice_type parent, const char *name, double high) {
    slice_type value = member(fields, parent, name, 0);
    return fields->fault != NULL || is_null(value) ? -1 : number_of(fields, value, name, 0, high);
}

static int32_t whole(fields_type *fields, double value, const char *name) {
    int32_t result = (int32_t)value;
    if (fields->fault == NULL && (double)result != value) fields->fault = name;
    return result;
}

/* `count` numbers of an array; null gives -1 for each if it `may_be_null`. */
static void numbers(fields_type *fields, slice_type parent, const char *name, double *out, int count, double low,
                    double high, int may_be_null) {
    slice_type value, array = member(fields, parent, name, 1);
    const char *p = NULL;
    int i = 0;
    if (fields->fault != NULL) return;
    if (may_be_null && is_null(array)) {
        for (; i < count; i++) out[i] = -1;
        return;
    }
    for (; i <= count && *array.begin == '[' && next_entry(array, &p, NULL, 0, &value); i++)
        if (i < count) out[i] = number_of(fields, value, name, low, high);
    if (i != count) fields->fault = name;
}

static void range(fields_type *fields, slice_type parent, int32_t out[2]) {
    double values[2] = {0, 0};
    numbers(fields, parent, "range", values, 2, 0, 72, 0);
    out[0] = whole(fields, values[0], "range");
    out[1] = whole(fields, values[1], "range");
}

/* A string, cut if it is too long; null gives "" if it is not needed. */
static void string(fields_type *fields, slice_type parent, const char *name, char *out, size_t capacity,
                   int is_needed) {
    slice_type value = member(fields, parent, name, is_needed);
    memset(out, 0, capacity);
    if (fields->fault != NULL || (is_null(value) && !is_needed)) return;
    if (read_string(value.begin, value.end, out, capacity) == NULL) fields->fault = name;
}

/* The place of a string among `words`. */
static int32_t choice(fields_type *fields, slice_type parent, const char *name, const char *const words[],
                      int32_t count) {
    char word[16];
    int32_t i;
    string(fields, parent, name, word, sizeof word, 1);
    for (i = 0; fields->fault == NULL && i < count; i++)
        if (strcmp(word, words[i]) == 0) return i;
    if (fields->fault == NULL) fields->fault = name;
    return 0;
}

static const char *const REGIONS[] = {"cervical", "lumbar"};
static const char *const REGION_STATUSES[] = {"scored", "rejected", "missing"};
static const char *const CORNER_STATUSES[] = {"scored", "abstained", "unreadable", "imputed"};
static const char *const TOTAL_STATUSES[] = {"complete", "imputed", "incomplete"};

static void read_corner(fields_type *fields, slice_type json, spinescore_corner *corner) {
    string(fields, json, "site", corner->site, sizeof corner->site, 1);
    corner->status = choice(fields, json, "status", CORNER_STATUSES, 4);
    corner->grade = whole(fields, number_or_null(fields, json, "grade", 3), "grade");
    corner->imputed = number_or_null(fields, json, "imputed", 3);
    numbers(fields, json, "probabilities", corner->probabilities, 4, 0, 1, 1);
    if (fields->fault == NULL && (corner->status == SPINESCORE_CORNER_SCORED) != (corner->grade >= 0))
        fields->fault = "grade";
}

static void read_disc(fields_type *fields, slice_type json, spinescore_disc *disc) {
    slice_type value, corners = container(fields, json, "corners", '[', 1);
    const char *p = NULL;
    int count = 0;
    string(fields, json, "level", disc->level, sizeof disc->level, 1);
    numbers(fields, json, "centre_px", disc->centre_px, 2, -1e6, 1e6, 0);
    numbers(fields, json, "anterior_px", disc->anterior_px, 2, -1e6, 1e6, 0);
    disc->confidence = number(fields, json, "confidence", 0, 1);
    disc->rotation_deg = number(fields, json, "rotation_deg", -180, 180);
    disc->total = number_or_null(fields, json, "total", 6);
    for (; fields->fault == NULL && next_entry(corners, &p, NULL, 0, &value); count++)
        if (count < 2) read_corner(fields, value, &disc->corners[count]);
    if (fields->fault == NULL && count != 2) fields->fault = "corners";
}

static void read_region(fields_type *fields, slice_type json, spinescore_region *region) {
    slice_type reject = container(fields, json, "reject", '{', 0), discs = container(fields, json, "discs", '[', 1);
    slice_type value;
    const char *p = NULL;
    region->status = choice(fields, json, "status", REGION_STATUSES, 3);
    region->total = number_or_null(fields, json, "total", 36);
    range(fields, json, region->range);
    region->missing = whole(fields, number(fields, json, "missing", 0, 12), "missing");
    if (fields->fault == NULL && !is_null(reject))
        string(fields, reject, "code", region->reject_code, sizeof region->reject_code, 1);
    for (; fields->fault == NULL && next_entry(discs, &p, NULL, 0, &value); region->disc_count++) {
        if (region->disc_count == 6)
            fields->fault = "discs";
        else
            read_disc(fields, value, &region->discs[region->disc_count]);
    }
    if (fields->fault == NULL && region->disc_count != (region->status == SPINESCORE_REGION_SCORED ? 6u : 0u))
        fields->fault = "discs";
}

/* Codes and regions of an array of findings: all are counted, the first `capacity` kept. */
static uint32_t read_findings(fields_type *fields, slice_type json, const char *name, spinescore_finding *out,
                              uint32_t capacity) {
    slice_type value, array = container(fields, json, name, '[', 0);
    const char *p = NULL;
    uint32_t count = 0;
    spinescore_finding finding;
    char region[16];
    if (is_null(array)) return 0;
    for (; fields->fault == NULL && next_entry(array, &p, NULL, 0, &value); count++) {
        memset(&finding, 0, sizeof finding);
        string(fields, value, "code", finding.code, sizeof finding.code, 1);
        string(fields, value, "region", region, sizeof region, 0);
        finding.region = strcmp(region, REGIONS[0]) == 0 ? 0 : strcmp(region, REGIONS[1]) == 0 ? 1 : -1;
        if (count < capacity) out[count] = finding;
    }
    return count;
}

static void read_results(fields_type *fields, slice_type json, spinescore_report *report) {
    slice_type value, results = container(fields, json, "results", '{', 0);
    const char *p = NULL;
    spinescore_result result;
    memset(&result, 0, sizeof result);
    while (!is_null(results) && fields->fault == NULL && report->result_count < 16 &&
           next_entry(results, &p, result.format, sizeof result.format, &value)) {
        if (read_string(value.begin, value.end, result.path, sizeof result.path) == NULL ||
            strlen(result.path) + 1 == sizeof result.path)
            fields->fault = "results"; /* no string, or cut */
        report->results[report->result_count++] = result;
        memset(&result, 0, sizeof result);
    }
}

static void read_report(fields_type *fields, slice_type json, spinescore_report *report) {
    slice_type study = container(fields, json, "study", '{', 1), regions = container(fields, json, "regions", '{', 1);
    slice_type total = container(fields, json, "total", '{', 1);
    slice_type times = container(fields, json, "timings_ms", '{', 1);
    slice_type within = member(fields, json, "within_budget", 0);
    char schema[32];
    int i;
    string(fields, json, "schema", schema, sizeof schema, 1);
    if (fields->fault == NULL && strcmp(schema, "spinescore.report/1") != 0) fields->fault = "schema";
    string(fields, study, "study_instance_uid", report->study_instance_uid, sizeof report->study_instance_uid, 0);
    report->total = number_or_null(fields, total, "value", 72);
    report->total_status = choice(fields, total, "status", TOTAL_STATUSES, 3);
    range(fields, total, report->range);
    report->elapsed_ms = number_or_null(fields, times, "total", 1e12);
    report->within_budget = *within.begin == 't' ? 1 : *within.begin == 'f' ? 0 : -1;
    for (i = 0; i < 2; i++) {
        slice_type region = container(fields, regions, REGIONS[i], '{', 1);
        if (fields->fault == NULL) read_region(fields, region, &report->regions[i]);
    }
    report->warning_count = read_findings(fields, json, "notices", report->warnings, 32);
    report->reject_count = read_findings(fields, json, "rejects", report->rejects, 16);
}

/* Fills `report` from an answer of the service, or from a report alone. */
static int parse(const char *json, size_t bytes, spinescore_report *report, spinescore_problem *problem) {
    static const char next_step[] = "Check that the address is that of a spinescore service, and its version.";
    fields_type fields = {NULL};
    slice_type root, inner;
    memset(report, 0, sizeof *report);
    report->answer_bytes = bytes;
    if (!check_json(json, bytes, &root))
        return fail(problem, SPINESCORE_BAD_ANSWER, next_step, "The answer is not a JSON object.");
    inner = container(&fields, root, "report", '{', 0);
    read_report(&fields, is_null(inner) ? root : inner, report);
    if (!is_null(inner)) read_results(&fields, root, report);
    if (fields.fault == NULL) return SPINESCORE_OK;
    memset(report, 0, sizeof *report);
    report->answer_bytes = bytes;
    return fail(problem, SPINESCORE_BAD_ANSWER, next_step, "The field %s of the report is missing or wrong.",
                fields.fault);
}

/* Takes code, message and next step from a problem document (RFC 9457); each stays as it is if it is not there. */
static void parse_problem(const char *json, size_t bytes, spinescore_problem *problem) {
    static const char *const names[] = {"code", "detail", "next_step"};
    char *out[] = {problem->code, problem->message, problem->next_step};
    size_t sizes[] = {sizeof problem->code, sizeof problem->message, sizeof problem->next_step};
    slice_type root;
    int i;
    if (!check_json(json, bytes, &root)) return;
    for (i = 0; i < 3; i++) {
        fields_type fields = {NULL};
        slice_type value = member(&fields, root, names[i], 0);
        if (*value.begin == '"') (void)read_string(value.begin, value.end, out[i], sizes[i]);
    }
}

#endif
