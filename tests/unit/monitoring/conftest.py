from registries import place, postgres_schema, registry

__all__ = ["place", "postgres_schema", "registry"]
