from registries import make, place, postgres_schema, registry

__all__ = ["make", "place", "postgres_schema", "registry"]
