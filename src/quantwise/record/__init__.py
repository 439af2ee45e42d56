"""A run folder becomes a record: everything a report shows, recomputed from the folder alone."""
