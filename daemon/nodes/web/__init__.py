"""What node types that speak HTTP are made of."""
