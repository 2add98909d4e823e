/* spinescore.h: scores a lateral spine study by the spinescore service of this computer.

   C99 on a little-endian computer; needs only the C library (on Windows also ws2_32). Compile
   spinescore.c and spinescore_codes.c into the program, or as a library by the CMake file.

   - Every call returns a spinescore_status. With a `problem` the caller also gets the code, what
     happened, and what to do next. `problem` may always be NULL.
   - Every struct that a caller passes begins with SPINESCORE_..._INIT, which sets its struct_size:
     by it the library sees with which version the program was compiled. Fields are only added, at
     the end of such a struct: an older program works with a newer library. Nested structs stay.
   - The caller owns every buffer and text that it passes; they are not used after the call. Only
     spinescore_open allocates, and spinescore_close frees that. A call needs 20 KiB of stack.
   - One handle makes one call at a time: another one at the same time returns SPINESCORE_IN_USE at
     once. Any number of handles work side by side. Nothing is global, no signal is raised, and the
     locale does not matter.
   - All text is UTF-8, names of files too, also on Windows. */
#ifndef SPINESCORE_H
#define SPINESCORE_H

#include <stddef.h>
#include <stdint.h>

#include "spinescore_codes.h" /* SPINESCORE_CODE_LOW_CONFIDENCE "low-confidence" and the others */

#if defined(_WIN32) && defined(SPINESCORE_BUILD_DLL)
#define SPINESCORE_API __declspec(dllexport)
#elif defined(_WIN32) && defined(SPINESCORE_DLL)
#define SPINESCORE_API __declspec(dllimport)
#elif defined(__GNUC__)
#define SPINESCORE_API __attribute__((visibility("default")))
#else
#define SPINESCORE_API
#endif

#ifdef __cplusplus
extern "C" {
#endif

typedef enum spinescore_status {
    SPINESCORE_OK = 0,
    SPINESCORE_REJECTED = 1,    /* the study cannot be scored; the problem's code says why */
    SPINESCORE_BUSY = 2,        /* the service is full or not ready; see retry_after_s */
    SPINESCORE_REFUSED = 3,     /* the service refused the call; the problem says why */
    SPINESCORE_TIMEOUT = 4,     /* one of the options, or the service's own: HTTP 408 or 504 */
    SPINESCORE_CANCELLED = 5,   /* spinescore_cancel was called */
    SPINESCORE_UNREACHABLE = 6, /* there is no service at the address */
    SPINESCORE_CLOSED = 7,      /* the connection ended before the answer did */
    SPINESCORE_BAD_ANSWER = 8,  /* the answer is not one of a service of the same release */
    SPINESCORE_TOO_LARGE = 9,   /* the answer does not fit into the buffer */
    SPINESCORE_USAGE = 10,      /* an argument is wrong */
    SPINESCORE_IN_USE = 11,     /* another thread makes a call with this handle */
    SPINESCORE_NO_MEMORY = 12,  /* memory or sockets are used up */
    SPINESCORE_FILE = 13        /* a file cannot be written */
} spinescore_status;

/* The first value of a struct that a caller passes: its struct_size, and 0 for everything else.
       spinescore_request request = SPINESCORE_REQUEST_INIT;
   C++ has make<spinescore_request>() of spinescore.hpp instead. */
#ifndef __cplusplus
#define SPINESCORE_INIT(type) {.struct_size = (uint32_t)sizeof(type)}
#define SPINESCORE_OPTIONS_INIT SPINESCORE_INIT(spinescore_options)
#define SPINESCORE_PROBLEM_INIT SPINESCORE_INIT(spinescore_problem)
#define SPINESCORE_VIEW_INIT SPINESCORE_INIT(spinescore_view)
#define SPINESCORE_REQUEST_INIT SPINESCORE_INIT(spinescore_request)
#define SPINESCORE_REPORT_INIT SPINESCORE_INIT(spinescore_report)
#endif

/* How the service is reached. A value of 0 or NULL takes the default. */
typedef struct spinescore_options {
    uint32_t struct_size;
    uint32_t connect_timeout_ms; /* default 2,000 */
    uint32_t send_timeout_ms;    /* for sending the whole study; default 10,000 */
    uint32_t timeout_ms;         /* for the whole call; default 60,000 */
    const char *address;         /* path of a Unix socket, or 127.0.0.1:PORT; there is no TLS */
    const char *token;           /* needed over TCP */
} spinescore_options;

/* What went wrong. After SPINESCORE_OK its texts are empty. */
typedef struct spinescore_problem {
    uint32_t struct_size;
    int32_t status;        /* the spinescore_status that the call returned */
    int32_t http_status;   /* 0 if the service gave no answer */
    int32_t retry_after_s; /* -1 if the service did not say */
    char code[48];         /* see spinescore_find_code; empty if the service gave none */
    char message[512];     /* what happened, with which object */
    char next_step[256];   /* what to do next */
} spinescore_problem;

/* One radiograph: raw grey pixels, or a DICOM file with rows 0, for which data and data_bytes are
   enough. DICOM results of raw pixels refer to the header, and cannot be made without one. */
typedef struct spinescore_view {
    uint32_t struct_size;
    uint32_t rows;
    const void *data; /* little endian, from the upper left pixel, row by row */
    size_t data_bytes;
    size_t row_stride_bytes; /* from one row to the next; 0: rows have no padding */
    uint32_t columns;
    uint32_t bits_allocated; /* 8 or 16 */
    uint32_t bits_stored;    /* 0: as many as are allocated */
    uint32_t reserved;
    double pixel_spacing_mm[2];             /* between rows, between columns; 0: not known */
    const char *photometric_interpretation; /* "MONOCHROME1" if 0 is white; NULL: the header's, or
                                               MONOCHROME2 */
    const char *region;                     /* "cervical", "lumbar", or NULL if it is not known */
    const char *facing;                     /* "left", "right": where the patient looks; or NULL */
    const char *study_instance_uid;         /* NULL if there is none */
    const char *sop_instance_uid;
    const void *header; /* of raw pixels: a DICOM file without pixels for the rest; or NULL */
    size_t header_bytes;
} spinescore_view;

/* What to score, and how. */
typedef struct spinescore_request {
    uint32_t struct_size;
    uint32_t view_count; /* 1 to 4, all raw pixels or all DICOM files; with headers at most 2 */
    const spinescore_view *views;
    uint32_t budget_ms;  /* 0: none */
    int32_t strict;      /* not 0: reject a region for each warning on its quality */
    const char *formats; /* results to make, such as "sr,gsps"; NULL: none */
    char *answer;        /* gets the service's JSON, ended with a NUL; NULL: it is not kept */
    size_t answer_capacity;
} spinescore_request;

/* Places in `regions`; also the region of a finding, which is -1 for the whole study. */
enum { SPINESCORE_CERVICAL, SPINESCORE_LUMBAR };
enum { SPINESCORE_REGION_SCORED, SPINESCORE_REGION_REJECTED, SPINESCORE_REGION_MISSING };
enum {
    SPINESCORE_CORNER_SCORED,
    SPINESCORE_CORNER_ABSTAINED,
    SPINESCORE_CORNER_UNREADABLE,
    SPINESCORE_CORNER_IMPUTED
};
enum { SPINESCORE_TOTAL_COMPLETE, SPINESCORE_TOTAL_IMPUTED, SPINESCORE_TOTAL_INCOMPLETE };

/* A number of a report that does not exist is -1. */
typedef struct spinescore_corner {
    char site[16];           /* "C3-superior" */
    int32_t status;          /* SPINESCORE_CORNER_... */
    int32_t grade;           /* 0 to 3 */
    double imputed;          /* what a missing corner counts in the total */
    double probabilities[4]; /* of grades 0 to 3 */
} spinescore_corner;

typedef struct spinescore_disc {
    char level[8];       /* "C2/C3" */
    double centre_px[2]; /* x to the right, y down; whole numbers are the centres of pixels */
    double anterior_px[2];
    double confidence; /* 0 to 1 */
    double rotation_deg;
    double total;                 /* -1: a corner is missing and not imputed */
    spinescore_corner corners[2]; /* of the upper vertebra, of the lower one */
} spinescore_disc;

typedef struct spinescore_region {
    int32_t status;       /* SPINESCORE_REGION_... */
    int32_t missing;      /* corners without a grade */
    double total;         /* 0 to 36 */
    int32_t range[2];     /* the least and the greatest that the total can be */
    char reject_code[48]; /* empty if the region was not rejected */
    uint32_t disc_count;  /* 0 or 6 */
    uint32_t reserved;
    spinescore_disc discs[6]; /* from above */
} spinescore_region;

typedef struct spinescore_finding {
    char code[48];
    int32_t region;
    uint32_t reserved;
} spinescore_finding;

typedef struct spinescore_result {
    char format[48]; /* "sr" */
    char path[208];  /* for spinescore_fetch */
} spinescore_result;

typedef struct spinescore_report {
    uint32_t struct_size;
    int32_t total_status; /* SPINESCORE_TOTAL_... */
    double total;         /* the mSASSS, 0 to 72 */
    int32_t range[2];
    int32_t within_budget; /* 1, 0, or -1 without a budget */
    uint32_t reserved;
    double elapsed_ms;     /* of scoring, as the service measured it */
    uint64_t answer_bytes; /* size of the answer's JSON, also if it was not kept or did not fit */
    char study_instance_uid[72];
    spinescore_region regions[2];
    uint32_t warning_count; /* of all warnings; the first 32 are here, all of them in the JSON */
    uint32_t reject_count;  /* of all rejects; the first 16 are here */
    spinescore_finding warnings[32];
    spinescore_finding rejects[16];
    uint32_t result_count; /* at most 16 */
    uint32_t reserved2;
    spinescore_result results[16];
} spinescore_report;

/* A row of the table of codes. The library owns it. */
typedef struct spinescore_code {
    const char *name, *severity, *meaning, *next_step;
} spinescore_code;

typedef struct spinescore_handle spinescore_handle;

/* Makes a handle; nothing is sent. */
SPINESCORE_API int spinescore_open(const spinescore_options *options, spinescore_handle **handle,
                                   spinescore_problem *problem);

/* Frees a handle, which no thread may use meanwhile. NULL is allowed. */
SPINESCORE_API void spinescore_close(spinescore_handle *handle);

/* SPINESCORE_OK if the service is ready to score, SPINESCORE_BUSY if it is not yet. */
SPINESCORE_API int spinescore_ready(spinescore_handle *handle, spinescore_problem *problem);

/* Scores one study and fills `report`. After SPINESCORE_REJECTED it has the reject of each region,
   if the service says so; after any other failure it is zero but for answer_bytes. The JSON of a
   failure is the problem document. */
SPINESCORE_API int spinescore_score(spinescore_handle *handle, const spinescore_request *request,
                                    spinescore_report *report, spinescore_problem *problem);

/* Reads a result, whose path is in the report, into a buffer. `bytes` gets the result's size, also
   if it is larger than the buffer. */
SPINESCORE_API int spinescore_fetch(spinescore_handle *handle, const char *path, void *buffer,
                                    size_t capacity, size_t *bytes, spinescore_problem *problem);

/* Writes a result to a file, whole or not at all: it is written to `file`.part, and renamed. */
SPINESCORE_API int spinescore_fetch_to_file(spinescore_handle *handle, const char *path,
                                            const char *file, spinescore_problem *problem);

/* Ends the call that another thread makes with the handle. It returns SPINESCORE_CANCELLED, at most
   about 20 ms later, and the service drops the study; a call that was ending anyway returns what it
   was about to. Returns 1, or 0 if no call is running; the next call is not affected. Any thread
   may cancel, at any time between spinescore_open and spinescore_close. */
SPINESCORE_API int spinescore_cancel(spinescore_handle *handle);

/* Fills `report` from one that was kept as its bytes, and checks it. */
SPINESCORE_API int spinescore_parse(const void *kept, size_t bytes, spinescore_report *report,
                                    spinescore_problem *problem);

/* The row of a code; NULL if this version of the library does not know it. */
SPINESCORE_API const spinescore_code *spinescore_find_code(const char *name);

/* The number-th row of the table of codes, from 0; NULL after the last one. */
SPINESCORE_API const spinescore_code *spinescore_list_codes(size_t number);

/* The name of a status, such as "timeout". */
SPINESCORE_API const char *spinescore_status_name(int status);

#ifdef __cplusplus
}
#endif
#endif
