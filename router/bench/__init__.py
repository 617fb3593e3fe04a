"""Puts load on a running router, and judges which promises it kept. Used by ``router bench`` and the benchmarks."""
