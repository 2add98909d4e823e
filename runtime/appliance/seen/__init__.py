"""What the appliance says of itself: ready, status, signs of life, and the audit log."""
