"""Helpers of several tests: small bundles and studies, doubles of libraries and devices, readers of results."""
