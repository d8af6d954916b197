"""Repositories over the control database."""
