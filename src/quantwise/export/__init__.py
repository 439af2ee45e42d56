"""Artifacts as other tools want them: a folder for Ollama, a checkpoint for TensorRT-LLM. Neither was ever run here."""
