"""What the appliance keeps on its disk: received objects, results, and the index with the state of each study."""
