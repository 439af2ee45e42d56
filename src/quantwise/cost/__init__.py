"""What a candidate costs: bytes and seconds, and a solved item with its reruns and its review."""
