"""What train.py is made of: plan, phases, meter, validation, reports, progress, extension."""
