"""What vLLM's own Python loads into its workers: this folder is on its path, and nothing else of quantwise is."""
