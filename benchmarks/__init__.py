"""What the router costs, beside the floor: the same routes in bare Starlette, in memory (docs/benchmarks.md)."""
