"""Key providers that need no service."""
