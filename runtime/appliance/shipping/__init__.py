"""The files with which the appliance is installed on a machine: a unit of systemd, and its drop-in for GPUs."""
