"""The service's HTTP side: a Starlette application under uvicorn, on a unix socket and, if it is configured, on TCP.

    sockets    makes the sockets that the server listens on
    server     runs the application on them
    limits     how many connections there are, how large a head is, and how long each may take
    app        the application: its routes, and errors as problems (RFC 9457)
    health     whether the service lives and is ready, its state and version
    metrics    what Prometheus reads

Nothing here imports pydicom or an engine before a request needs it.
"""
