from registries import make, place, postgres_schema, quick_folder, registry

__all__ = ["make", "place", "postgres_schema", "quick_folder", "registry"]
