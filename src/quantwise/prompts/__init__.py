"""Prompts: whether an arm reads what its baseline reads, by token ids."""
