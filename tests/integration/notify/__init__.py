"""Webhooks as receivers get them."""
