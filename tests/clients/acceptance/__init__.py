"""What the acceptance runs are made of: cases, clients and their installation, gateways and the tap in front of them, checks."""
