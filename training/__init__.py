"""What train.py is made of: plan, phases, meter, validation, resuming, more_epochs, reports."""
