"""Looks at everything that the router depends on here, and says what to do about what is not well."""
