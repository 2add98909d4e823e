"""The service's HTTP side: a Starlette application under uvicorn, on a unix socket and, if it is configured, on TCP.

    server     runs the application on its sockets
    limits     how many connections there are, how large a head is, and how long each may take
    app        the application: its routes, and errors as problems (RFC 9457)
    access     who may ask for which path
    health     whether the service lives and is ready, its state and version, and what Prometheus reads
    scoring    a console's call: pixels in, the report out
    consolebody    the same for the C library, whose study and report are structs
    studies    studies that are sent, listed, shown and taken up again
    reviews    readers' verdicts: corrections, "cannot be read", "can be read", "accepted", and previews of them
    views      the grey values of a radiograph, for the review page
    events     each change of a study, to those who listen
    pages      files of results, and those of the review page

Nothing here imports pydicom or an engine before a request needs it.
"""
