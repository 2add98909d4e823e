"""Opening a bundle: on which engine, and what another process builds or checks meanwhile.

request     what the user asked for
candidates  the engines that may run it, in the order in which they are tried
openscorer  the loop over the candidates, and the scorer that comes of it
planned     the latency plan that a bundle is opened by
building    engines for a GPU that can be built here
checking    engines of a CPU that can be checked here
background  the process that does either, seen from the scorer; builder is that process
inuse       the engine that scores now, and the one that takes its place
plan        the document; plansearch finds what is written into it
"""
