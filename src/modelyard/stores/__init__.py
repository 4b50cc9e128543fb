"""Stores keep blobs by digest. Names and versions of what is in them live in the registry."""
