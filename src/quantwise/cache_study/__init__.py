"""What each cache type of llama.cpp does to one model at one long context: recall, divergence, bytes, speed."""
