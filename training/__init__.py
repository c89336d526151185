"""What train.py is made of: plan, phases, losses, validation, reports, progress, extension."""
