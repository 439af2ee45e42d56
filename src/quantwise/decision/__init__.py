"""The rule: what a candidate must pass, which of two is better, and what is shipped."""
