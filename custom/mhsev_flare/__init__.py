"""The federated side of mhsev."""
