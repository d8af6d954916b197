"""Removing what is stored: by name, by age, by policy, and what nothing refers to."""
