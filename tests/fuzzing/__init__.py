"""Malformed requests for a real server: what is well formed, how it is spoilt, how it is sent, what must hold."""
