"""The router as it really runs, with whatever fails failing, and what clients saw judged."""
