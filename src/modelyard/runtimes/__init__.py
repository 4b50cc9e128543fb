"""Runtimes: each loads and saves one model format. They meet only through ``modelyard.interfaces.Runtime``."""
