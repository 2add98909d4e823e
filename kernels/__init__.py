"""The kernels of the pipeline, `warp`, `decode` and `average`: CUDA sources and their float64 references."""
