"""The repository format: keys, framing, codecs, manifests."""
