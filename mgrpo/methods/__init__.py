"""Every method is a folder: recipe, page, and the parts that it adds."""
