"""A user's module that cannot be imported."""

raise ZeroDivisionError("this module divides by zero when it is imported")
