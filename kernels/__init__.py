"""The two kernels of the pipeline, `warp` and `decode`: CUDA sources and their float64 references."""
