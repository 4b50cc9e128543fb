from recordings import records, shop

__all__ = ["records", "shop"]
