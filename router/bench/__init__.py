"""Load against a running router, and the judge of what came of it. Known to ``router bench`` and the benchmarks."""
