"""Training of the shipped bundle's networks on phantom studies, and its evaluation on other phantoms."""
