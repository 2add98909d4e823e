/* spinescore.h: scores a lateral spine study by the spinescore service of this computer.

   C99 on a little-endian computer; needs only the C library (on Windows also ws2_32). Compile spinescore.c and
   spinescore_codes.c into the program, or build them as a library with the CMake file beside this header.

   Rules of every call
   - It returns a spinescore_status. With a `problem` the caller also gets the code, what happened, and the next step.
   - Every struct that a caller passes begins with SPINESCORE_..._INIT, which sets its struct_size: this is how the
     library sees with which version the program was compiled. Fields are only added, and only at the end of such a
     struct, so that an older program works with a newer library. Nested structs never change.
   - The caller owns every buffer and every text that it passes; they are not used after the call. Only the handle is
     allocated here, by spinescore_open; spinescore_close frees it. A call needs about 16 KiB of the thread's stack.
   - One handle makes one call at a time: a second call at the same time returns SPINESCORE_IN_USE at once. Any number
     of handles work side by side. There is no global state, no signal is raised, and the locale does not matter.
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
    SPINESCORE_BUSY = 2,        /* the service is full or not ready; retry_after_s says when to try again */
    SPINESCORE_REFUSED = 3,     /* the service refused the call; http_status and the problem say why */
    SPINESCORE_TIMEOUT = 4,     /* a time-out of the options, or the service's own (then http_status is 408 or 504) */
    SPINESCORE_CANCELLED = 5,   /* spinescore_cancel was called */
    SPINESCORE_UNREACHABLE = 6, /* there is no service at the address */
    SPINESCORE_CLOSED = 7,      /* the connection ended before the answer did */
    SPINESCORE_BAD_ANSWER = 8,  /* the answer is not HTTP, or not a report */
    SPINESCORE_TOO_LARGE = 9,   /* the answer does not fit into the buffer */
    SPINESCORE_USAGE = 10,      /* an argument is wrong */
    SPINESCORE_IN_USE = 11,     /* another thread makes a call with this handle */
    SPINESCORE_NO_MEMORY = 12,  /* memory or sockets are used up */
    SPINESCORE_FILE = 13        /* a file cannot be written */
} spinescore_status;

typedef struct spinescore_handle spinescore_handle;

/* The first value of a struct that a caller passes: its struct_size, and 0 for everything else. For example
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
    const char *address;         /* path of a Unix socket, or 127.0.0.1:PORT; no other host, because there is no TLS */
    const char *token;           /* needed over TCP */
} spinescore_options;

/* What went wrong. Every call fills it; after SPINESCORE_OK its texts are empty. */
typedef struct spinescore_problem {
    uint32_t struct_size;
    int32_t status;        /* the spinescore_status that the call returned */
    int32_t http_status;   /* 0 if the service gave no answer */
    int32_t retry_after_s; /* -1 if the service did not say */
    char code[48];         /* one of codes.md, see spinescore_find_code; empty if the service gave none */
    char message[512];     /* what happened, with which object */
    char next_step[256];   /* what to do next */
} spinescore_problem;

/* One radiograph: raw grey pixels, or the bytes of a DICOM file. Then rows is 0, and data and data_bytes are enough.
   DICOM results of raw pixels refer to the header, and cannot be made without one. */
typedef struct spinescore_view {
    uint32_t struct_size;
    uint32_t rows;
    const void *data; /* little endian, from the upper left pixel, row by row */
    size_t data_bytes;
    size_t row_stride_bytes; /* from one row to the next; 0: rows follow each other without padding */
    uint32_t columns;
    uint32_t bits_allocated; /* 8 or 16 */
    uint32_t bits_stored;    /* 0: as many as are allocated */
    uint32_t reserved;
    double pixel_spacing_mm[2];             /* between rows, between columns; 0: not known */
    const char *photometric_interpretation; /* "MONOCHROME1" if 0 is white; NULL: MONOCHROME2, or the header's */
    const char *region;                     /* "cervical", "lumbar", or NULL if it is not known */
    const char *facing;                     /* the side to which the patient looks: "left", "right" or NULL */
    const char *study_instance_uid;         /* NULL if there is none */
    const char *sop_instance_uid;
    const void *header; /* for raw pixels: the bytes of a DICOM file without pixels, which states the rest; or NULL */
    size_t header_bytes;
} spinescore_view;

/* What to score, and how. */
typedef struct spinescore_request {
    uint32_t struct_size;
    uint32_t view_count; /* 1 to 4, all of them raw pixels or all of them DICOM files; with headers at most 2 */
    const spinescore_view *views;
    uint32_t budget_ms;  /* 0: none */
    int32_t strict;      /* not 0: reject a region for each warning on its quality */
    const char *formats; /* results to make, such as "sr,gsps"; NULL: none */
    char *answer;        /* gets the service's JSON, ended with a NUL; NULL: it is not kept */
    size_t answer_capacity;
} spinescore_request;

/* Places in `regions`; also the region of a finding, which is -1 for the whole study. */
enum { SPINESCORE_CERVICAL = 0, SPINESCORE_LUMBAR = 1 };
enum { SPINESCORE_REGION_SCORED = 0, SPINESCORE_REGION_REJECTED = 1, SPINESCORE_REGION_MISSING = 2 };
enum {
    SPINESCORE_CORNER_SCORED = 0,
    SPINESCORE_CORNER_ABSTAINED = 1,
    SPINESCORE_CORNER_UNREADABLE = 2,
    SPINESCORE_CORNER_IMPUTED = 3
};
enum { SPINESCORE_TOTAL_COMPLETE = 0, SPINESCORE_TOTAL_IMPUTED = 1, SPINESCORE_TOTAL_INCOMPLETE = 2 };

typedef struct spinescore_corner {
    char site[16];           /* "C3-superior" */
    int32_t status;          /* SPINESCORE_CORNER_... */
    int32_t grade;           /* 0 to 3; -1: none */
    double imputed;          /* what a missing corner counts in the total; -1: it does not */
    double probabilities[4]; /* of grades 0 to 3; -1 if the network gave none */
} spinescore_corner;

typedef struct spinescore_disc {
    char level[8];       /* "C2/C3" */
    double centre_px[2]; /* x to the right, y down, in pixels of the radiograph; whole numbers are pixel centres */
    double anterior_px[2];
    double confidence; /* 0 to 1 */
    double rotation_deg;
    double total;                 /* -1: a corner is missing and not imputed */
    spinescore_corner corners[2]; /* of the upper vertebra, of the lower one */
} spinescore_disc;

typedef struct spinescore_region {
    int32_t status;       /* SPINESCORE_REGION_... */
    int32_t missing;      /* corners without a grade */
    double total;         /* 0 to 36; -1: none */
    int32_t range[2];     /* the least and the greatest that the total can be */
    char reject_code[48]; /* empty if the region was not rejected */
    uint32_t disc_count;  /* 0 or 6 */
    uint32_t reserved;
    spinescore_disc discs[6]; /* from above */
} spinescore_region;

typedef struct spinescore_finding {
    char code[48];
    int32_t region; /* SPINESCORE_CERVICAL, SPINESCORE_LUMBAR, or -1 */
    uint32_t reserved;
} spinescore_finding;

typedef struct spinescore_result {
    char format[48]; /* "sr" */
    char path[208];  /* for spinescore_fetch */
} spinescore_result;

typedef struct spinescore_report {
    uint32_t struct_size;
    int32_t total_status; /* SPINESCORE_TOTAL_... */
    double total;         /* the mSASSS, 0 to 72; -1: none */
    int32_t range[2];
    int32_t within_budget; /* 1, 0, or -1 without a budget */
    uint32_t reserved;
    double elapsed_ms;     /* of scoring, as the service measured it; -1: not measured */
    uint64_t answer_bytes; /* size of the answer's JSON, also if it was not kept or did not fit */
    char study_instance_uid[72];
    spinescore_region regions[2]; /* SPINESCORE_CERVICAL, SPINESCORE_LUMBAR */
    uint32_t warning_count;       /* of all warnings; the first 32 are here, all of them in the JSON */
    uint32_t reject_count;        /* of all rejects; the first 16 are here */
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

/* Makes a handle; nothing is sent. In every call `problem` may be NULL. */
SPINESCORE_API int spinescore_open(const spinescore_options *options, spinescore_handle **handle,
                                   spinescore_problem *problem);

/* Frees a handle, which no thread may use meanwhile. NULL is allowed. */
SPINESCORE_API void spinescore_close(spinescore_handle *handle);

/* SPINESCORE_OK if the service is ready to score, SPINESCORE_BUSY if it is not yet. */
SPINESCORE_API int spinescore_ready(spinescore_handle *handle, spinescore_problem *problem);

/* Scores one study and fills `report`. After SPINESCORE_REJECTED it has the reject of each region, if the service says
   so; after any other failure it is all zero but for answer_bytes. The answer's JSON is then the problem document. */
SPINESCORE_API int spinescore_score(spinescore_handle *handle, const spinescore_request *request,
                                    spinescore_report *report, spinescore_problem *problem);

/* Reads a result into the caller's buffer. `path` is that of a spinescore_result. `bytes` gets the result's size, also
   if it is larger than the buffer; 0 if the size is not known. */
SPINESCORE_API int spinescore_fetch(spinescore_handle *handle, const char *path, void *buffer, size_t capacity,
                                    size_t *bytes, spinescore_problem *problem);

/* Writes a result to a file, whole or not at all: it is written beside the file (`file`.part) and then renamed. */
SPINESCORE_API int spinescore_fetch_to_file(spinescore_handle *handle, const char *path, const char *file,
                                            spinescore_problem *problem);

/* Ends the call that another thread is making with this handle. That call returns SPINESCORE_CANCELLED, at most about
   20 ms later, and the service drops the study. If it was ending anyway, it returns what it was about to return.
   Returns 1, or 0 if no call is running; the next call is not affected. Any thread may cancel, at any time between
   spinescore_open and spinescore_close. */
SPINESCORE_API int spinescore_cancel(spinescore_handle *handle);

/* Fills `report` from one that the caller kept as its bytes, perhaps of a program of another version, and checks it. */
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
