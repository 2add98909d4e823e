/* Stands in for TensorRT's libraries, so that NVIDIA's Python bindings can be imported without them.
   Nothing can be made, as with a driver that is too old: a line for the logger, then a null pointer. Later than 10.x
   there is no line, since a logger's virtual functions lie elsewhere. */
#include <stddef.h>

typedef void (*Log)(void *logger, int severity, const char *line); /* the first virtual function of ILogger */

static void *refuse(void *logger, int version) {
    if (logger != NULL && version < 110000)
        (**(Log **)logger)(logger, 1, "CUDA initialization failure with error: 35");
    return NULL;
}

void *createInferBuilder_INTERNAL(void *logger, int version) { return refuse(logger, version); }
void *createInferRuntime_INTERNAL(void *logger, int version) { return refuse(logger, version); }
void *createInferRefitter_INTERNAL(void *engine, void *logger, int version) { return NULL; }
void *createNvOnnxParser_INTERNAL(void *network, void *logger, int version) { return NULL; }
void *createNvOnnxParserRefitter_INTERNAL(void *refitter, void *logger, int version) { return NULL; }
void *getBuilderPluginRegistry(int capability) { return NULL; }
void *getPluginRegistry(void) { return NULL; }
int getNvOnnxParserVersion(void) { return 0; }
int initLibNvInferPlugins(void *logger, const char *name) { return 0; }
