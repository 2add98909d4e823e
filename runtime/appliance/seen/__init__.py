"""The appliance as it is seen from outside: readiness, status, signs of life, and the audit log."""
