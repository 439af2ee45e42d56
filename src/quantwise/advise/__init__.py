"""The field's advice as claims, and its failures with their fixes: data with sources, and a user's own numbers."""
