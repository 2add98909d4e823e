"""The configuration of the appliance: its tables, its secrets and the files of TLS."""
