"""The driver for Google Cloud Storage, on its JSON API."""
