"""When a question about a candidate and a task is settled: beside its baseline, and by itself against a floor."""
