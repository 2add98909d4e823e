"""Thousands of mutated files and documents, to test that readers answer with a result or a coded refusal."""
