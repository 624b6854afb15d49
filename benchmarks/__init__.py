"""Side-by-side measurements; results live in RESULTS.md."""
