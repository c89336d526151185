"""The command that fetches public datasets, where they are, and how archives are unpacked."""
