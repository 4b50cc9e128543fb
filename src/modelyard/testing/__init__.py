"""Conformance kits and in-memory twins, public: for our own tests and for those of plugins."""
