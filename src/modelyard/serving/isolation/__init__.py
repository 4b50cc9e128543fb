"""Models in processes of their own: ``choice`` decides, ``keeper`` keeps them, ``remote`` calls them."""
