"""The appliance's disk: received objects, results, and the index with the state of each study."""
