"""Opening a bundle: on which engine, and what another process builds or checks meanwhile.

request     what the user asked for
candidates  the engines that may run it, tried in order until one opens
openscorer  a scorer by a plan, by a candidate, or after an engine was built or checked
planned     the latency plan that a bundle is opened by
building    engines for a GPU that can be built here
checking    engines of a CPU that can be checked here
background  the process that does either, seen from the scorer; builder is that process
inuse       the engine that scores now, and the one that takes its place
plan        the document; plansearch finds what is written into it
"""
