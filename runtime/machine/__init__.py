"""This machine and this process: its CPU, its packages, its caches, and the worker processes that are started."""
